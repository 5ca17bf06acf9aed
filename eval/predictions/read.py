"""Reading of a predictions file into responses, failures and warnings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import DataError, Example
from data.readers import RawRow
from eval.benchmark import Benchmark, Response
from eval.predictions.checks import answer_warnings, missing_warnings, question_warnings, text_warnings
from eval.predictions.columns import NEEDED, POSITION, columns_of
from eval.predictions.files import rows_of
from eval.predictions.ids import with_data_ids, with_position_as_id
from eval.predictions.records import Layout
from eval.predictions.samples import numbered


@dataclass(frozen=True)
class Predictions:
    """Content of a predictions file.

    Attributes:
        responses: the responses that it has, and the failures that it reports in their place.
        warnings: one line for each doubt about the file.
        missing: ids and sample numbers that the file has without a response, with or without a failure.
    """

    responses: Sequence[Response]
    warnings: Sequence[str] = ()
    missing: Collection[tuple[str, int]] = ()


def read_predictions(
    path: str | Path,
    benchmark: Benchmark,
    *,
    examples: Sequence[Example] | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Response]:
    """Return the responses of a predictions file; arguments and exceptions as for ``read_file``."""
    return list(read_file(path, benchmark, examples=examples, columns=columns).responses)


def read_file(
    path: str | Path,
    benchmark: Benchmark,
    *,
    examples: Sequence[Example] | None = None,
    columns: Mapping[str, str] | None = None,
    marks: Sequence[str] = (),
) -> Predictions:
    """Read a predictions file.

    If the rows have no ``sample``, those of the same id are numbered in their order; copies are dropped.

    Args:
        path: JSON Lines, JSON (a list, or an object of rows or texts by id), CSV, TSV, .xlsx or parquet; the
            text formats also with ``.gz`` and in UTF-16.
        benchmark: its own output format is tried first.
        examples: the questions. With them ids are compared as numbers, ``11.0`` is ``11``, and the file's own
            questions are compared with theirs.
        columns: columns by field, ``{"id": "index", "response": "prediction"}``; else the usual names.
        marks: beginnings of texts that report a failure, besides those of VLMEvalKit and lmms-eval.

    Raises:
        UserError: ``columns`` names an unknown field.
        DataError: no such file, no rows, a bad row, a duplicate (id, sample), or without ``sample`` ids that
            occur more often than others.
    """
    file = Path(path).expanduser()
    rows = _rows(file, path)
    ids = None if examples is None else {one.id for one in examples}
    layout = Layout(benchmark, columns_of(rows, columns or {}, ids, file.name), bool(columns), marks)
    records = [record for row in rows for record in layout.records(row)]
    warnings: list[str] = []
    if examples is None:
        records = [with_position_as_id(record) for record in records]
    else:
        records, warnings = with_data_ids(records, examples, file.name)
        warnings += question_warnings(records, examples, benchmark)
        warnings += answer_warnings(records, examples)
    records, doubts = numbered(records, file.name)
    warnings += [*doubts, *missing_warnings(records), *text_warnings(records, file.suffix)]
    return Predictions(
        [one.response for one in records if not one.missing or one.response.failure is not None],
        warnings,
        {(one.response.id, one.response.sample) for one in records if one.missing},
    )


def _rows(file: Path, named: str | Path) -> list[RawRow]:
    if file.is_dir():
        inside = file / "rows.jsonl"
        advice = f"give {inside}" if inside.is_file() else "give one of its files"
        raise DataError(f"{named} is a folder; {advice}")
    if not file.is_file():
        raise DataError(f"the predictions file {named} does not exist; {NEEDED}")
    rows = rows_of(file)
    if not rows:
        raise DataError(f"{named} has no rows; {NEEDED}")
    return _of_one_filter(rows)


def _of_one_filter(rows: list[RawRow]) -> list[RawRow]:
    """Return the rows of the first filter: lm-eval logs the same responses once per filter."""
    filters = [row.values.get("filter") for row in rows if POSITION in row.values]
    if len(filters) < len(rows) or filters.count(filters[0]) == len(rows):
        return rows
    return [row for row in rows if row.values.get("filter") == filters[0]]
