"""Sheets of the page: results grouped by benchmark, with their paired comparisons and control drops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from eval.comparison import Comparison, compare
from eval.results import EvalResult, read_result
from mm_cpgd.errors import UserError

_NEEDED = ("benchmark", "protocols", "flags", "settings")


@dataclass(frozen=True)
class Sheet:
    """Results of one benchmark; ``labels``, ``summaries``, ``rows`` and ``folders`` have equal lengths.

    Attributes:
        benchmark: its name.
        labels: distinguish the results, usually the model.
        summaries: contents of each ``summary.json``.
        rows: rows of each ``rows.jsonl``.
        folders: the results' folders.
    """

    benchmark: str
    labels: tuple[str, ...]
    summaries: tuple[Mapping[str, Any], ...]
    rows: tuple[Sequence[Mapping[str, Any]], ...]
    folders: tuple[Path, ...]

    @property
    def protocols(self) -> list[str]:
        """All protocols of the results, each once, in the requested order."""
        return list(dict.fromkeys(chain.from_iterable(summary["protocols"] for summary in self.summaries)))

    def groups(self, protocol: str) -> dict[str, dict[str, list[Mapping[str, Any] | None]]]:
        """Return each result's score by dimension and value for one protocol, None where it has none."""
        own = [summary["protocols"].get(protocol, {}).get("groups", {}) for summary in self.summaries]
        return {
            dimension: {
                value: [groups.get(dimension, {}).get(value) for groups in own]
                for value in dict.fromkeys(chain.from_iterable(groups.get(dimension, {}) for groups in own))
            }
            for dimension in dict.fromkeys(chain.from_iterable(own))
        }


def read_sheets(results: Sequence[tuple[str, Path]]) -> list[Sheet]:
    """Read results in the given order; those of the same benchmark form one sheet.

    Args:
        results: label and folder of each; if a benchmark has a label twice, the folder is appended to it.

    Raises:
        UserError: no result, or a folder without one.
    """
    if not results:
        raise UserError("no results; give at least one result folder")
    read = [(label, Path(folder), _read(folder)) for label, folder in results]
    return [
        _sheet(name, [one for one in read if one[2].summary["benchmark"] == name])
        for name in dict.fromkeys(result.summary["benchmark"] for _, _, result in read)
    ]


def _read(folder: str | Path) -> EvalResult:
    result = read_result(folder)
    absent = [name for name in _NEEDED if name not in result.summary]
    if absent:
        raise UserError(f"{folder}: its summary.json has no {absent[0]}, so it is not a result; score again")
    return result


def _sheet(name: str, read: Sequence[tuple[str, Path, EvalResult]]) -> Sheet:
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
    """Comparison of a later result with the first; a positive difference means the later one is better."""

    first: str
    later: str
    comparison: Comparison


@dataclass(frozen=True)
class ControlDrop:
    """Accuracy drop of a control by one protocol.

    Attributes:
        label: label of the control's result.
        protocol: protocol of the scores.
        drop: the drop as returned by ``eval.controls.accuracy_drop``.
    """

    label: str
    protocol: str
    drop: Mapping[str, Any]


def paired(sheet: Sheet) -> list[Paired]:
    """Return the comparisons with the first result by each common protocol, without controls."""
    results = [
        (label, EvalResult(summary, rows))
        for label, summary, rows in zip(sheet.labels, sheet.summaries, sheet.rows, strict=True)
        if not summary.get("control")
    ]
    return [
        Paired(results[0][0], label, comparison)
        for label, result in results[1:]
        for protocol in sheet.protocols
        if (comparison := _comparison(results[0][1], result, protocol))
    ]


def control_drops(sheet: Sheet) -> list[ControlDrop]:
    """Return the accuracy drops of the sheet's controls; empty if there are none."""
    return [
        ControlDrop(label, protocol, drop)
        for label, summary in zip(sheet.labels, sheet.summaries, strict=True)
        for protocol, drop in (summary.get("control") or {}).get("protocols", {}).items()
    ]


def _comparison(first: EvalResult, later: EvalResult, protocol: str) -> Comparison | None:
    try:
        return compare(first, later, protocol)
    except UserError:  # protocol not in both, or no common question: nothing to show
        return None
