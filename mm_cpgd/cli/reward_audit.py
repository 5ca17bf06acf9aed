"""``mm-cpgd rewards audit``: verification of every gold answer of a data set against itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import Example, ExampleSet, TooManyBadRows, load_examples
from data.checks import ImageCheck
from mm_cpgd.preflight.data import reason_kind
from mm_cpgd.tracking.progress import slow_bar
from rewards import Component, RewardSum, Verdict
from rewards.math.bounds import Unreadable
from rewards.math.choices import find_options, gold_letters
from rewards.math.read import read_gold
from rewards.math.tree import exact_value
from rewards.messages import short

SHOWN = 10
_STRUCTURES = {"rel": "relation", "bracket": "tuple or interval", "set": "set", "matrix": "matrix"}


@dataclass(frozen=True)
class AuditedGold:
    """A gold answer, its kind, and the verdict on a completion that consists of it."""

    example: Example
    kind: str
    verdict: Verdict

    @property
    def verifiable(self) -> bool:
        """Whether the right answer receives the full score."""
        return self.verdict.score is not None and self.verdict.score >= 1


def load(
    path: str,
    columns: dict[str, str],
    split: str | None,
    name: str | None,
    limit: int | None,
    console: Console,
    *,
    seed: int = 0,
    check_images: ImageCheck | None = "header",
) -> ExampleSet:
    """Read the rows; unusable ones are counted separately. Arguments are those of ``load_examples``."""
    try:
        with slow_bar(console, f"reading {path}") as report:
            return load_examples(
                path, columns=columns, split=split, name=name, limit=limit, seed=seed, max_bad_share=1.0,
                check_images=check_images, progress=report,
            )  # fmt: skip
    except TooManyBadRows as error:
        return ExampleSet([], error.quarantined, len(error.quarantined))


def audit(
    rule: str, options: dict[str, Any], examples: Sequence[Example], console: Console
) -> list[AuditedGold]:
    """Score every gold answer, in an <answer> tag, against itself; slow audits show a progress bar."""
    reward = RewardSum([Component(rule, options=options, name="rule")])
    audited = []
    with slow_bar(console, f"auditing with {rule}") as report:
        for example in examples:
            verdict = reward.score_one(f"<answer>{example.answer}</answer>", example).components["rule"]
            audited.append(AuditedGold(example, kind(example), verdict))
            report(len(audited), len(examples))
    return audited


def kind(example: Example) -> str:
    """Return what kind of answer the gold answer is, as the rule "accuracy" reads it."""
    if example.choices and find_options(example.answer, example.choices):
        return "option"
    if gold_letters(example.answer):
        return "letter"
    try:
        parsed = read_gold(example.answer)
    except Unreadable as error:
        return f"unreadable: {str(error).partition(':')[0]}"
    if len(parsed.items) > 1:
        return "several items" if parsed.ordered else "several values"
    tree = parsed.items[0].tree
    if tree is None:
        return "words"
    return _STRUCTURES.get(tree.op) or ("number" if exact_value(tree) is not None else "expression")


def print_audit(rows: ExampleSet, audited: Sequence[AuditedGold], console: Console) -> None:
    """Print the verifiable share by kind, the reasons for the others, and the first of them."""
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
        line = f"  {one.example.source}: {short(one.example.answer, 70, end=True)!r}: {one.verdict.reason}"
        console.print(Text(line), soft_wrap=True)
    if len(failed) > SHOWN:
        console.print(Text(f"  … and {len(failed) - SHOWN:,} more; --json FILE lists all"))
    if rows.quarantined:
        console.print(
            Text(f"{len(rows.quarantined):,} rows are unusable: mm-cpgd data check gives the reasons")
        )


def summary(path: str, rule: str, rows: ExampleSet, audited: Sequence[AuditedGold]) -> dict[str, Any]:
    """Return the audit for a JSON file."""
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


def _by_kind(audited: Sequence[AuditedGold]) -> list[tuple[str, list[AuditedGold]]]:
    names = [name for name, _ in Counter(one.kind for one in audited).most_common()]
    return [(name, [one for one in audited if one.kind == name]) for name in names]


def _shares(group: Sequence[AuditedGold]) -> tuple[str, str, str]:
    verifiable = sum(one.verifiable for one in group)
    share = f"{verifiable / len(group):.1%}" if group else "–"
    return f"{len(group):,}", f"{verifiable:,}", share


def _reasons(failed: Sequence[AuditedGold]) -> list[tuple[tuple[str, str], int]]:
    return Counter(
        (one.verdict.status.value, reason_kind(one.verdict.reason)) for one in failed
    ).most_common()
