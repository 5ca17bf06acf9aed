"""Options and output that several commands share: which rows to read, rules, explanations, JSON files."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mm_cpgd.config.yaml import parse_yaml
from mm_cpgd.errors import UserError
from rewards import explain, list_rules
from rewards.registry import find_rule, options_of
from rewards.verdict import RuleError

# Exit status of a command whose result is written but not complete: a server did not reply to all requests.
INCOMPLETE = 3

# As in the data section of a config.
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="field=column, for instance answer=solution")
]
Split = Annotated[str | None, typer.Option(help="split of the dataset")]
Name = Annotated[str | None, typer.Option(help="configuration of a hub dataset")]
Limit = Annotated[int | None, typer.Option(help="maximum number of rows, taken from the start")]


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return the options of ``--option key=value``; values are parsed as in a config."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise UserError(f"--option {text!r} is not of the form key=value, for instance timeout=5")
        options[key.strip()] = parse_yaml(value, f"--option {text!r}")
    return options


def parse_settings(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Return the settings of ``key=value`` options that are sent to a server; values are JSON, else text.

    Raises:
        UserError: one is not of that form, or a key is given twice; ``option`` is its name.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UserError(f"{option} {text!r} must be key=value, such as max_completion_tokens=2000")
        if name in found:
            raise UserError(f"{option} {name} is given twice; give it once")
        try:
            # NaN and Infinity are no JSON, and servers refuse them.
            found[name] = json.loads(value, parse_constant=str)
        except ValueError:
            found[name] = value
    return found


def print_rules(console: Console) -> None:
    """Print every named rule with its score and options."""
    table = Table("rule", "score", "options", show_lines=True)
    for name, summary in list_rules().items():
        table.add_row(Text(name), Text(summary), Text(_options_line(name)))
    console.print(table)


def _options_line(name: str) -> str:
    try:
        parameters = options_of(find_rule(name)[1]).values()
    except RuleError:
        return "–"
    return ", ".join(
        parameter.name
        if parameter.default is inspect.Parameter.empty
        else f"{parameter.name}={parameter.default!r}"
        for parameter in parameters
    )


def print_explanation(completion: str, gold: str, choices: Sequence[str], console: Console) -> None:
    """Print the extracted answer, both parsed sides and the deciding step."""
    explanation = explain(completion, gold, choices=tuple(choices))
    verdict = explanation.verdict
    score = "none" if verdict.score is None else f"{verdict.score:g}"
    table = Table(show_header=False)
    for what, text in (
        ("verdict", f"{verdict.status.value}, score {score}"),
        ("reason", verdict.reason),
        ("extracted", verdict.extracted or "nothing"),
        ("found", explanation.found),
        ("answer read as", "\n".join(explanation.answer) or "–"),
        ("gold read as", "\n".join(explanation.gold) or "–"),
        ("decided by", explanation.decided_by),
    ):
        table.add_row(what, Text(text))
    console.print(table)


def result_folders(paths: Sequence[Path]) -> list[Path]:
    """Return the result folders; a folder that is no result stands for the results that it contains."""
    found = []
    for path in paths:
        inside = sorted(one.parent for one in path.glob("*/summary.json"))
        found += inside if inside and not (path / "summary.json").is_file() else [path]
    return found


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file. Raises ``UserError`` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; name another --json file") from error
