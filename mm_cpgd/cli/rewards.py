"""``mm-cpgd rewards``: list, test, attack and explain rules, audit data. Does not load torch."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mm_cpgd.cli.common import Columns, Limit, Name, Split

rewards_app = typer.Typer(no_args_is_help=True, help="List, test and explain reward rules.")

RuleName = Annotated[str, typer.Argument(help="a rule's name (rewards list), or path/to/file.py:function")]
Options = Annotated[list[str] | None, typer.Option("--option", help="key=value of the rule, may be repeated")]
Json = Annotated[Path | None, typer.Option("--json", help="also write all results to this file")]


class SecondOpinion(str, Enum):
    """Other verifiers that verdicts can be compared with."""

    MATH_VERIFY = "math-verify"


@rewards_app.command("list")
def list_command() -> None:
    """List the rules with their scores and options.

    Example: `mm-cpgd rewards list`
    """
    from mm_cpgd.cli.common import print_rules

    print_rules(Console())


@rewards_app.command("test")
def cases_command(
    rule: RuleName,
    cases: Annotated[
        Path, typer.Argument(help="rows with completion, gold, expected and optionally choices")
    ],
    options: Options = None,
    min_accuracy: Annotated[
        float, typer.Option(min=0, max=1, help="exit with status 1 below this share of right verdicts")
    ] = 1.0,
    second_opinion: Annotated[
        SecondOpinion | None,
        typer.Option(help="list disagreements with another verifier, if it is installed"),
    ] = None,
    json_file: Json = None,
) -> None:
    """Test a rule on cases whose verdict is known; exit with status 1 if one fails.

    `expected` is true, false, a score, null (no score), or a status such as unparsable_gold.

    Example: `mm-cpgd rewards test accuracy cases.jsonl --min-accuracy 0.99`
    """
    from mm_cpgd.cli import reward_cases
    from mm_cpgd.cli.common import parse_options, write_json

    console, given = Console(), parse_options(options or [])
    rows = reward_cases.read_cases(cases)
    results = reward_cases.run_cases(rule, given, rows, second_opinion is not None, console)
    if json_file:  # before anything is printed, which a closed pipe ends
        write_json(json_file, reward_cases.summary(rule, given, results))
    reward_cases.print_results(rule, results, console)
    if message := reward_cases.failure_message(results, min_accuracy):
        console.print(message, soft_wrap=True)
        raise typer.Exit(1)


@rewards_app.command("audit")
def audit_command(
    path: Annotated[str, typer.Argument(help="a file, folder or hub name, as for data check")],
    columns: Columns = None,
    split: Split = None,
    name: Name = None,
    limit: Limit = None,
    rule: Annotated[str, typer.Option(help="the rule that scores them")] = "accuracy",
    options: Options = None,
    json_file: Json = None,
) -> None:
    """Show by kind which gold answers can be scored, and what right answers in usual forms get.

    Example: `mm-cpgd rewards audit rows.jsonl --column answer=gold --json audit.json`
    """
    from mm_cpgd.cli import reward_audit
    from mm_cpgd.cli.common import parse_options, write_json
    from mm_cpgd.preflight.data import column_mapping

    console = Console()
    rows = reward_audit.load(path, column_mapping(columns or []), split, name, limit, console)
    audited = reward_audit.audit(rule, parse_options(options or []), rows.examples, console)
    if json_file:
        write_json(json_file, reward_audit.summary(path, rule, rows, audited))
    reward_audit.print_audit(rows, audited, console)


@rewards_app.command("attack")
def attack_command(
    rule: RuleName,
    path: Annotated[
        str, typer.Argument(help="a file, folder or hub name, as for data check, or generated:all")
    ],
    columns: Columns = None,
    split: Split = None,
    name: Name = None,
    limit: Limit = None,
    options: Options = None,
    per_kind: Annotated[
        int, typer.Option(min=0, help="attacks of each kind on a gold answer, drawn by the seed; 0 tries all")
    ] = 2,
    seed: Annotated[int, typer.Option(help="seed of the draw, and of generated rows")] = 0,
    paid_from: Annotated[float, typer.Option(help="the score from which an attack counts as paid")] = 1.0,
    json_file: Json = None,
) -> None:
    """Score a rule on answers that must not pass, made of a data set's gold answers; report what is paid.

    Exit status 1 if anything is paid.

    Example: `mm-cpgd rewards attack accuracy generated:all --limit 2000 --json paid.json`
    """
    from mm_cpgd.cli import reward_attack, reward_audit
    from mm_cpgd.cli.common import parse_options, write_json
    from mm_cpgd.preflight.data import column_mapping

    console, given = Console(), parse_options(options or [])
    # Rules read no images, so rows whose images are missing are attacked as well.
    rows = reward_audit.load(
        path, column_mapping(columns or []), split, name, limit, console, seed=seed, check_images=None
    )
    report = reward_attack.run(rule, given, rows, per_kind or None, seed, paid_from, console)
    if json_file:
        write_json(json_file, reward_attack.summary(path, rule, given, rows, report))
    reward_attack.print_report(rule, rows, report, console)
    if report.paid:
        raise typer.Exit(1)


@rewards_app.command("explain")
def explain_command(
    completion: Annotated[str, typer.Option(help="the model's complete text")],
    gold: Annotated[str, typer.Option(help="the gold answer")],
    choices: Annotated[
        list[str] | None, typer.Option("--choice", help="an option's text, in order A, B, …; may be repeated")
    ] = None,
) -> None:
    r"""Explain a verdict of the rule "accuracy": the extracted answer, both parsed sides, the deciding step.

    Example: `mm-cpgd rewards explain --completion 'so \boxed{2/4}' --gold 0.5`
    """
    from mm_cpgd.cli.common import print_explanation

    print_explanation(completion, gold, choices or [], Console())
