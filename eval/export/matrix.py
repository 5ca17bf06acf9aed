"""Results as a matrix: models as rows, benchmarks by protocol as columns, with intervals and significance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.comparison import Difference, compare
from eval.reference.names import model_name
from eval.results import EvalResult, read_result
from mm_cpgd.errors import UserError


@dataclass(frozen=True)
class Column:
    """A benchmark scored by one protocol; numbers of two columns are never comparable.

    Attributes:
        benchmark: name of the benchmark.
        split: split that was asked for, None for the usual one.
        protocol: name of the protocol.
        judge: the LLM that judged, None without one.
    """

    benchmark: str
    split: str | None
    protocol: str
    judge: str | None

    @property
    def title(self) -> str:
        """``mathvista (official)``, ``mathverse testmini (judge gpt-4o)``."""
        judge = f" {self.judge}" if self.judge else ""
        return f"{self.benchmark}{f' {self.split}' if self.split else ''} ({self.protocol}{judge})"


@dataclass(frozen=True)
class Cell:
    """One result's number; shares, not percent.

    Attributes:
        accuracy: None if no response has a score.
        interval: 95 % interval.
        total: responses with a score.
        difference: to the baseline, None without one or for the baseline itself.
        adjusted: Holm's adjusted p of the difference, over all differences of the matrix.
    """

    accuracy: float | None
    interval: tuple[float, float]
    total: int
    difference: Difference | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class Matrix:
    """Results of models on benchmarks.

    Attributes:
        rows: names of the models.
        columns: benchmarks by protocol.
        cells: by row and column, where there is a result.
        baseline: name of the row that the others are compared with.
        methods: how intervals and p of the differences are computed.
        notes: limits of the numbers and of their comparability, one line each.
    """

    rows: Sequence[str]
    columns: Sequence[Column]
    cells: Mapping[tuple[str, Column], Cell]
    baseline: str | None
    methods: Sequence[str]
    notes: Sequence[str]


def build_matrix(
    folders: Sequence[str | Path],
    *,
    protocol: str | None = None,
    baseline: str | None = None,
    labels: Sequence[str] = (),
) -> Matrix:
    """Read results and arrange them.

    Args:
        folders: result folders.
        protocol: protocol of all numbers, None for each result's first one.
        baseline: folder or name of a model; the others are compared with its results, question by question.
        labels: names of the models, one per folder; none for those that the results store.

    Raises:
        UserError: a folder without a result, a protocol that a result lacks, two results for one cell, or no
            such baseline.
    """
    if labels and len(labels) != len(folders):
        raise UserError(f"{len(labels)} labels for {len(folders)} results; give one --label per result")
    results = [read_result(folder) for folder in folders]
    summaries = [one.summary for one in results]
    own = _same_splits(
        [column_of(one, protocol, str(folder)) for folder, one in zip(folders, summaries, strict=True)],
        summaries,
    )
    names = list(labels) or _names(folders, summaries, own)
    placed: dict[tuple[str, Column], tuple[str, EvalResult]] = {}
    for folder, key, result in zip(folders, zip(names, own, strict=True), results, strict=True):
        if key in placed:
            raise UserError(
                f"{placed[key][0]} and {folder} are both results of {key[0]} on {key[1].title}; "
                "give them different names: --label"
            )
        placed[key] = str(folder), result
    base = _baseline(baseline, folders, names)
    cells = {key: _cell(result, key[1]) for key, (_, result) in placed.items()}
    compared, methods, notes = _differences({key: result for key, (_, result) in placed.items()}, base)
    cells = {key: replace(cell, difference=compared.get(key)) for key, cell in cells.items()}
    notes = [*_caveats({key: result for key, (_, result) in placed.items()}), *notes]
    rows, columns = list(dict.fromkeys(names)), list(dict.fromkeys(own))
    return Matrix(rows, columns, _adjusted(cells), base, methods, notes)


def column_of(summary: Mapping[str, Any], protocol: str | None, folder: str) -> Column:
    """Return the column of a result. Raises ``UserError`` if it lacks the protocol."""
    name = protocol or summary["protocol"]
    if name not in summary["protocols"]:
        known = ", ".join(summary["protocols"]) or "none"
        raise UserError(f"{folder} has no protocol {name!r} but {known}; name one of them, or score again")
    settings = summary.get("settings", {})
    judge = (settings.get("judge") or {}).get("model") if name == "judge" else None
    return Column(summary["benchmark"], settings.get("split"), name, judge)


def result_name(folder: str | Path, summary: Mapping[str, Any]) -> str:
    """Return the name of a result's model: stored, else its predictions file's, else the folder's."""
    settings = summary.get("settings", {})
    predictions = settings.get("predictions")
    name = model_name(settings) or (
        Path(str(predictions)).stem if predictions else Path(folder).resolve().name
    )
    control = settings.get("control")
    return f"{name} (images {control})" if control else name


def _same_splits(columns: Sequence[Column], summaries: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns; a result without a named split joins one with a name that has the same data."""
    prints = [one.get("settings", {}).get("data_fingerprint") for one in summaries]
    named = {
        (column.benchmark, data): column.split
        for column, data in zip(columns, prints, strict=True)
        if column.split and data
    }
    return [
        replace(column, split=column.split or named.get((column.benchmark, data)))
        for column, data in zip(columns, prints, strict=True)
    ]


def _names(
    folders: Sequence[str | Path], summaries: Sequence[Mapping[str, Any]], columns: Sequence[Column]
) -> list[str]:
    """Return the models' names; results of one model in one column also get their folder."""
    names = [result_name(folder, one) for folder, one in zip(folders, summaries, strict=True)]
    counts = Counter(zip(names, columns, strict=True))
    twice = {name for (name, _), count in counts.items() if count > 1}
    return [
        f"{name} [{folder}]" if name in twice else name for name, folder in zip(names, folders, strict=True)
    ]


def _baseline(wanted: str | None, folders: Sequence[str | Path], names: Sequence[str]) -> str | None:
    """Return the name of the baseline's row, given that name, one of its results, or the folder of these."""
    if wanted is None:
        return None
    place = Path(wanted).expanduser().resolve()
    for folder, name in zip(folders, names, strict=True):
        own = Path(folder).expanduser().resolve()
        if wanted == name or place in (own, own.parent):
            return name
    known = ", ".join(dict.fromkeys(names))
    raise UserError(f"--baseline {wanted!r} is none of the exported results; the models are {known}")


def _cell(result: EvalResult, column: Column) -> Cell:
    overall = result.summary["protocols"][column.protocol]["overall"]
    low, high = overall["interval"]
    return Cell(overall["accuracy"], (low, high), overall["total"])


def _differences(
    results: Mapping[tuple[str, Column], EvalResult], baseline: str | None
) -> tuple[dict[tuple[str, Column], Difference], list[str], list[str]]:
    """Return the differences to the baseline by cell, their methods, and what limits them."""
    found: dict[tuple[str, Column], Difference] = {}
    methods: list[str] = []
    notes: list[str] = []
    for (name, column), result in results.items():
        base = None if baseline is None else results.get((baseline, column))
        if base is None or name == baseline:
            continue
        try:
            comparison = compare(base, result, column.protocol)
        except UserError as error:
            notes.append(f"{name}, {column.title}: not compared with the baseline: {error}")
            continue
        found[name, column] = comparison.overall
        methods.append(comparison.method)
        notes += [f"{name}, {column.title}: {line}" for line in comparison.warnings]
    return found, list(dict.fromkeys(methods)), notes


def _adjusted(cells: Mapping[tuple[str, Column], Cell]) -> dict[tuple[str, Column], Cell]:
    """Return the cells with p adjusted for their number by Holm's method (Holm 1979)."""
    keys = [key for key, cell in cells.items() if cell.difference is not None]
    adjusted = dict(zip(keys, holm([cells[key].difference.p for key in keys]), strict=True))  # type: ignore[union-attr]
    return {key: replace(cell, adjusted=adjusted.get(key)) for key, cell in cells.items()}


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p: the i-th smallest of m times m − i + 1, never decreasing, at most 1."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        found[place] = highest
    return found


def _caveats(results: Mapping[tuple[str, Column], EvalResult]) -> list[str]:
    """Return the results' flags, and the columns whose results are not of the same questions."""
    lines = [
        f"{name}, {column.title}: {flag}"
        for (name, column), result in results.items()
        for flag in result.summary["flags"]
    ]
    for column in dict.fromkeys(column for _, column in results):
        stored = (
            one.summary.get("settings", {}).get("data_fingerprint")
            for (_, other), one in results.items()
            if other == column
        )
        if len({fingerprint for fingerprint in stored if fingerprint}) > 1:
            lines.append(f"{column.title}: the results are not of the same questions")
    return lines
