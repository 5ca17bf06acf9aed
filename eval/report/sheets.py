"""Sheets of the page: results grouped by benchmark, and how they differ question by question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from eval.compare import Comparison, compare
from eval.results import Result, read_result
from mm_cpgd.errors import UserError

_NEEDED = ("benchmark", "protocols", "flags", "settings")


@dataclass(frozen=True)
class Sheet:
    """One benchmark's results, side by side: ``labels``, ``summaries`` and ``rows`` are of equal length.

    Attributes:
        benchmark: its name.
        labels: what tells the results apart, usually the model.
        summaries: of ``summary.json``.
        rows: of ``rows.jsonl``.
        folders: where they lie.
    """

    benchmark: str
    labels: tuple[str, ...]
    summaries: tuple[Mapping[str, Any], ...]
    rows: tuple[Sequence[Mapping[str, Any]], ...]
    folders: tuple[Path, ...]

    @property
    def protocols(self) -> list[str]:
        """All protocols that a result has, each once, in the order asked for."""
        return list(dict.fromkeys(chain.from_iterable(summary["protocols"] for summary in self.summaries)))

    def groups(self, protocol: str) -> dict[str, dict[str, list[Mapping[str, Any] | None]]]:
        """Return each result's score by dimension and value under one protocol, None where it has none."""
        own = [summary["protocols"].get(protocol, {}).get("groups", {}) for summary in self.summaries]
        return {
            dimension: {
                value: [groups.get(dimension, {}).get(value) for groups in own]
                for value in dict.fromkeys(chain.from_iterable(groups.get(dimension, {}) for groups in own))
            }
            for dimension in dict.fromkeys(chain.from_iterable(own))
        }


def read_sheets(results: Sequence[tuple[str, Path]]) -> list[Sheet]:
    """Read results, in the order given; those of the same benchmark come to one sheet.

    Args:
        results: label and folder of each; where a benchmark has two of one label, the folder is added to it.

    Raises:
        UserError: no result, or a folder that holds none.
    """
    if not results:
        raise UserError("no result to show; give at least one result folder")
    read = [(label, Path(folder), _read(folder)) for label, folder in results]
    return [
        _sheet(name, [one for one in read if one[2].summary["benchmark"] == name])
        for name in dict.fromkeys(result.summary["benchmark"] for _, _, result in read)
    ]


def _read(folder: str | Path) -> Result:
    result = read_result(folder)
    absent = [name for name in _NEEDED if name not in result.summary]
    if absent:
        raise UserError(f"{folder}: its summary.json has no {absent[0]}, so it is no result; score again")
    return result


def _sheet(name: str, read: Sequence[tuple[str, Path, Result]]) -> Sheet:
    counts = Counter(label for label, _, _ in read)
    return Sheet(
        benchmark=name,
        labels=tuple(label if counts[label] == 1 else f"{label} ({folder})" for label, folder, _ in read),
        summaries=tuple(result.summary for _, _, result in read),
        rows=tuple(result.rows for _, _, result in read),
        folders=tuple(folder for _, folder, _ in read),
    )


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
