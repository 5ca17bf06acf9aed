"""``mm-cpgd rewards attack``: what a rule pays for completions that must not pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import ExampleSet
from mm_cpgd.tracking.progress import slow_bar
from rewards.attack import Paid, Report, attack
from rewards.messages import short

SHOWN = 20


def run(
    rule: str,
    options: Mapping[str, Any],
    rows: ExampleSet,
    per_kind: int | None,
    seed: int,
    paid_from: float,
    console: Console,
) -> Report:
    """Score the rule on the attacks on every gold answer; slow runs show a progress bar."""
    with slow_bar(console, f"attacking {rule}") as report:
        return attack(
            rule,
            rows.examples,
            options,
            per_kind=per_kind,
            seed=seed,
            paid_from=paid_from,
            progress=report,
        )


def print_report(rule: str, rows: ExampleSet, report: Report, console: Console) -> None:
    """Print what was tried and paid by kind, and examples of what was paid, of every kind in turn."""
    table, paid = Table("kind of attack", "tried", "paid"), report.paid_by_kind()
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, tried in sorted(report.tried.items(), key=lambda pair: (-paid[pair[0]], pair[0])):
        table.add_row(kind, f"{tried:,}", f"{paid[kind]:,}", style="red" if paid[kind] else None)
    table.add_section()
    table.add_row("all", f"{report.tried.total():,}", f"{len(report.paid):,}")
    console.print(table)
    for line in _remarks(rule, rows, report):
        console.print(Text(line), soft_wrap=True)
    for one in _in_turn(report.paid)[:SHOWN]:
        console.print(Text(f"  {_line(one)}"), soft_wrap=True)
    if len(report.paid) > SHOWN:
        console.print(Text(f"  … and {len(report.paid) - SHOWN:,} more; --json FILE lists all"))


def _remarks(rule: str, rows: ExampleSet, report: Report) -> list[str]:
    lines = [f"{report.golds:,} gold answers attacked; {rule} pays {report.right:,} of them as themselves"]
    if report.skipped:
        lines.append(f"{report.skipped:,} gold answers skipped: no surely wrong answer is known for them")
    if rows.quarantined:
        lines.append(f"{len(rows.quarantined):,} rows are unusable: mm-cpgd data check gives the reasons")
    if report.golds and not report.right:
        lines.append("the rule pays for no gold answer, so what it does not pay shows nothing")
    return lines


def _in_turn(paid: list[Paid]) -> list[Paid]:
    """Return the first of each kind, then the second of each kind, and so on."""
    seen: dict[str, int] = {}
    rank = []
    for one in paid:
        seen[one.attack.kind] = seen.get(one.attack.kind, 0) + 1
        rank.append(seen[one.attack.kind])
    return [one for _, one in sorted(zip(rank, paid, strict=True), key=lambda pair: pair[0])]


def _line(one: Paid) -> str:
    completion = short(one.attack.completion, 80, end=True)
    return f"{one.attack.kind}: {completion!r} for {short(one.example.answer, 40)!r}: {one.attack.why}"


def summary(
    path: str, rule: str, options: Mapping[str, Any], rows: ExampleSet, report: Report
) -> dict[str, Any]:
    """Return the report for a JSON file."""
    paid = report.paid_by_kind()
    return {
        "data": path,
        "rule": rule,
        "options": dict(options),
        "rows": len(rows.examples),
        "unusable_rows": len(rows.quarantined),
        "attacked": report.golds,
        "skipped": report.skipped,
        "paid_as_themselves": report.right,
        "tried": report.tried.total(),
        "paid": len(report.paid),
        "kinds": [
            {"kind": kind, "tried": tried, "paid": paid[kind]} for kind, tried in sorted(report.tried.items())
        ],
        "statuses": dict(report.statuses),
        "paid_attacks": [_record(one) for one in report.paid],
    }


def _record(one: Paid) -> dict[str, Any]:
    return {
        "id": getattr(one.example, "id", ""),
        "gold": one.example.answer,
        "choices": list(one.example.choices),
        "kind": one.attack.kind,
        "completion": one.attack.completion,
        "why": one.attack.why,
        "score": one.verdict.score,
        "extracted": one.verdict.extracted,
        "reason": one.verdict.reason,
    }
