"""Stored predictions: plain rows of ``id`` and ``response``, or a benchmark's own output format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data import DataError, read_rows
from data.readers import RawRow
from eval.benchmark import DECLINED, Benchmark, Failure, Response
from rewards import Status

COLUMNS = ("id", "response", "sample", "extraction", "finished", "tokens")
_NEEDED = "a prediction needs the columns id and response, and may have " + ", ".join(COLUMNS[2:])


def read_predictions(path: str | Path, benchmark: Benchmark) -> list[Response]:
    """Read stored predictions from JSON Lines, JSON (a list, or an object by id) or parquet.

    If the rows have no ``sample``, those of the same id are numbered in their order.

    Raises:
        DataError: no such file, no rows, a bad row, a duplicate (id, sample), or without ``sample`` ids that
            occur more often than others.
    """
    if not Path(path).expanduser().is_file():
        raise DataError(f"the predictions file {path} does not exist; {_NEEDED}")
    name = Path(path).name
    rows = list(read_rows(Path(path).expanduser()))
    if not rows:
        raise DataError(f"{path} has no rows; {_NEEDED}")
    responses = [_response(row, benchmark) for row in rows]
    numbered = [row.values.get("sample") is not None for row in rows]
    if any(numbered) != all(numbered):
        raise DataError(f"{name}: some rows have a `sample` and some have none; number all of them, or none")
    if not any(numbered):
        return _numbered(responses, name)
    check_unique(responses, name)
    return responses


def check_unique(responses: Sequence[Response], where: str) -> None:
    """Raise ``DataError`` if a question has two responses with the same sample number."""
    counts = Counter((one.id, one.sample) for one in responses)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: {len(twice):,} responses occur twice, first id {twice[0][0]!r} "
            f"sample {twice[0][1]}; keep one of each"
        )


def _numbered(responses: Sequence[Response], where: str) -> list[Response]:
    """Number the responses to each question; all questions must have the same number of them."""
    counts = Counter(one.id for one in responses)
    usual = Counter(counts.values()).most_common(1)[0][0]
    other = [name for name, count in counts.items() if count != usual]
    if other:
        raise DataError(
            f"{where}: id {other[0]!r} occurs {counts[other[0]]} times, most ids {usual} "
            f"({len(other):,} ids differ); remove the copies, or number the responses in a column `sample`"
        )
    seen: Counter[str] = Counter()
    numbered = []
    for one in responses:
        numbered.append(replace(one, sample=seen[one.id]))
        seen[one.id] += 1
    return numbered


def _response(row: RawRow, benchmark: Benchmark) -> Response:
    if row.error:
        raise DataError(f"{row.where}: {row.error}")
    plain = "id" in row.values and "response" in row.values
    if benchmark.read is None or (plain and set(row.values) <= set(COLUMNS)):
        return plain_response(row.values, row.where)
    try:
        return replace(benchmark.read(row.values), failure=stored_failure(row.values))
    except (DataError, KeyError, TypeError, ValueError) as error:
        if plain:
            return plain_response(row.values, row.where)
        what = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{row.where} is neither in {benchmark.name}'s output format ({what}) nor plain: {_NEEDED}"
        ) from error


def plain_response(values: Mapping[str, Any], where: str) -> Response:
    """Convert a plain record to a response; other columns are ignored.

    Raises:
        DataError: a column is missing or has a value of the wrong type; ``where`` begins the message.
    """
    missing = [column for column in COLUMNS[:2] if column not in values]
    if missing:
        there = ", ".join(map(str, list(values)[:12])) or "none"
        raise DataError(f"{where} has no column {' or '.join(missing)} (it has: {there}); {_NEEDED}")
    if values["id"] is None or not str(values["id"]).strip():
        raise DataError(f"{where}: the id is empty; use the question's id from the data")
    return Response(
        id=_text(values, "id", where) or "",
        text=_text(values, "response", where) or "",
        sample=_whole(values, "sample", where) or 0,
        extraction=_text(values, "extraction", where),
        finished=_truth(values, "finished", where),
        tokens=_whole(values, "tokens", where),
        failure=stored_failure(values),
    )


def stored_failure(values: Mapping[str, Any]) -> Failure | None:
    """Return why a row of an evaluation's rows.jsonl has no response, None if it has one."""
    found = values.get("failure")
    if not isinstance(found, Mapping):
        return None
    known = {one.value: one for one in (Status.NOT_ANSWERED, *DECLINED)}
    status = known.get(str(found.get("status")), Status.NOT_ANSWERED)
    return Failure(str(found.get("reason") or ""), status, str(values.get("response") or ""))


def _text(values: Mapping[str, Any], column: str, where: str) -> str | None:
    value = values.get(column)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise DataError(f"{where}: {column} is a {type(value).__name__}, it must be text")


def _whole(values: Mapping[str, Any], column: str, where: str) -> int | None:
    value = values.get(column)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise DataError(f"{where}: {column} is {value!r}, it must be an integer of at least 0")


def _truth(values: Mapping[str, Any], column: str, where: str) -> bool | None:
    value = values.get(column)
    if value is None or isinstance(value, bool):
        return value
    raise DataError(f"{where}: {column} is {value!r}, it must be true, false or null")
