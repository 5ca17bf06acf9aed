"""``mm-cpgd rewards audit``: can the gold answers of a data set be scored at all? Each against itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import Example, ExampleSet, TooManyBadRows, load_examples
from mm_cpgd.cli.reward_text import short
from mm_cpgd.preflight.data import kind_of, slow_bar
from rewards import Component, RewardSum, Verdict
from rewards.math.bounds import Unreadable
from rewards.math.choices import chosen, gold_letters
from rewards.math.read import read_gold
from rewards.math.tree import exact

SHOWN = 10
_STRUCTURES = {"rel": "relation", "bracket": "tuple or interval", "set": "set", "matrix": "matrix"}


@dataclass(frozen=True)
class Audited:
    """A gold answer, what kind of answer it is, and the verdict on a completion that says just that."""

    example: Example
    kind: str
    verdict: Verdict

    @property
    def verifiable(self) -> bool:
        """Whether the right answer gets the full score."""
        return self.verdict.score is not None and self.verdict.score >= 1


def load(
    path: str,
    columns: dict[str, str],
    split: str | None,
    name: str | None,
    limit: int | None,
    console: Console,
) -> ExampleSet:
    """Read the rows, of the images the headers only; rows that training could not use are counted apart."""
    try:
        with slow_bar(console, f"reading {path}") as report:
            return load_examples(
                path, columns=columns, split=split, name=name, limit=limit, max_bad_share=1.0,
                check_images="header", progress=report,
            )  # fmt: skip
    except TooManyBadRows as error:
        return ExampleSet([], error.quarantined, len(error.quarantined))


def audit(rule: str, options: dict[str, Any], examples: Sequence[Example], console: Console) -> list[Audited]:
    """Judge every gold answer, in an <answer> tag, against itself; with a bar if it takes long."""
    judge = RewardSum([Component(rule, options=options, name="rule")])
    audited = []
    with slow_bar(console, f"auditing with {rule}") as report:
        for example in examples:
            verdict = judge.score_one(f"<answer>{example.answer}</answer>", example).components["rule"]
            audited.append(Audited(example, kind(example), verdict))
            report(len(audited), len(examples))
    return audited


def kind(example: Example) -> str:
    """Return what kind of answer the gold answer is, as the rule "accuracy" reads it."""
    if example.choices and chosen(example.answer, example.choices):
        return "option"
    if gold_letters(example.answer):
        return "letter"
    try:
        reading = read_gold(example.answer)
    except Unreadable as error:
        return f"unreadable: {str(error).partition(':')[0]}"
    if len(reading.parts) > 1:
        return "several blanks" if reading.ordered else "several values"
    tree = reading.parts[0].tree
    if tree is None:
        return "words"
    return _STRUCTURES.get(tree.op) or ("number" if exact(tree) is not None else "expression")


def print_audit(rows: ExampleSet, audited: Sequence[Audited], console: Console) -> None:
    """Print the verifiable share by kind, why the rest is not, and the first of those."""
    table = Table("kind of gold answer", "rows", "verifiable", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, group in _by_kind(audited):
        table.add_row(Text(name), *_shares(group))
    table.add_section()
    table.add_row("all", *_shares(audited))
    console.print(table)
    failed = [one for one in audited if not one.verifiable]
    for (status, reason), count in _reasons(failed):
        console.print(Text(f"  {count:,} {status}: {reason}"), soft_wrap=True)
    for one in failed[:SHOWN]:
        line = f"  {one.example.source}: {short(one.example.answer)!r}: {one.verdict.reason}"
        console.print(Text(line), soft_wrap=True)
    if len(failed) > SHOWN:
        console.print(Text(f"  … and {len(failed) - SHOWN:,} more; --json FILE has them all"))
    if rows.quarantined:
        console.print(
            Text(f"{len(rows.quarantined):,} rows cannot be used at all: mm-cpgd data check says why")
        )


def summary(path: str, rule: str, rows: ExampleSet, audited: Sequence[Audited]) -> dict[str, Any]:
    """Return all of it for a JSON file."""
    failed = [one for one in audited if not one.verifiable]
    return {
        "data": path,
        "rule": rule,
        "rows": len(audited),
        "unusable_rows": len(rows.quarantined),
        "verifiable": len(audited) - len(failed),
        "share": (len(audited) - len(failed)) / len(audited) if audited else None,
        "kinds": [
            {"kind": name, "rows": len(group), "verifiable": sum(one.verifiable for one in group)}
            for name, group in _by_kind(audited)
        ],
        "not_verifiable": [
            {
                "id": one.example.id,
                "source": one.example.source,
                "answer": one.example.answer,
                "kind": one.kind,
                "status": one.verdict.status.value,
                "reason": one.verdict.reason,
            }
            for one in failed
        ],
    }


def _by_kind(audited: Sequence[Audited]) -> list[tuple[str, list[Audited]]]:
    names = [name for name, _ in Counter(one.kind for one in audited).most_common()]
    return [(name, [one for one in audited if one.kind == name]) for name in names]


def _shares(group: Sequence[Audited]) -> tuple[str, str, str]:
    verifiable = sum(one.verifiable for one in group)
    share = f"{verifiable / len(group):.1%}" if group else "–"
    return f"{len(group):,}", f"{verifiable:,}", share


def _reasons(failed: Sequence[Audited]) -> list[tuple[tuple[str, str], int]]:
    return Counter((one.verdict.status.value, kind_of(one.verdict.reason)) for one in failed).most_common()
