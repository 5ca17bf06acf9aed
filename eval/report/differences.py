"""How the results of one sheet differ, question by question: paired differences, and what a control costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.comparison import Comparison, compare
from eval.report.sheets import Sheet
from eval.results import Result
from mm_cpgd.errors import UserError


@dataclass(frozen=True)
class Paired:
    """A later result held against the first one; a positive difference is in the later one's favour."""

    first: str
    later: str
    comparison: Comparison


@dataclass(frozen=True)
class Cost:
    """What a control costs by one protocol.

    Attributes:
        label: of the control's result.
        protocol: whose scores.
        drop: as ``eval.controls.drop`` gives it.
    """

    label: str
    protocol: str
    drop: Mapping[str, Any]


def paired(sheet: Sheet) -> list[Paired]:
    """Return the differences to the first result by every protocol in both; controls have ``costs``."""
    results = [
        (label, Result(summary, rows))
        for label, summary, rows in zip(sheet.labels, sheet.summaries, sheet.rows, strict=True)
        if not summary.get("control")
    ]
    return [
        Paired(results[0][0], label, comparison)
        for label, result in results[1:]
        for protocol in sheet.protocols
        if (comparison := _compared(results[0][1], result, protocol))
    ]


def costs(sheet: Sheet) -> list[Cost]:
    """Return what the sheet's controls cost; empty if there is none."""
    return [
        Cost(label, protocol, drop)
        for label, summary in zip(sheet.labels, sheet.summaries, strict=True)
        for protocol, drop in (summary.get("control") or {}).get("protocols", {}).items()
    ]


def _compared(first: Result, later: Result, protocol: str) -> Comparison | None:
    try:
        return compare(first, later, protocol)
    except UserError:  # not asked of both, or no question in common: nothing to show, and no fault
        return None
