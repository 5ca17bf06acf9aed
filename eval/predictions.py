"""Stored predictions: plain rows of ``id`` and ``response``, or a benchmark's own output format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data import DataError, Row, read_rows
from eval.benchmark import Benchmark, Response

COLUMNS = ("id", "response", "sample", "extraction", "finished", "tokens")
_NEEDED = "an answer needs the columns id and response, and may have " + ", ".join(COLUMNS[2:])


def read_responses(path: str | Path, benchmark: Benchmark) -> list[Response]:
    """Read stored answers from JSON Lines, JSON (a list, or an object by id) or parquet.

    Where rows have no ``sample``, several of the same id are numbered in their order.

    Raises:
        DataError: no such file, nothing in it, a bad row, an answer that is there twice, or ids that are
            there more often than others without ``sample`` to say why.
    """
    if not Path(path).expanduser().is_file():
        raise DataError(f"there is no file {path} of answers; {_NEEDED}")
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
    """Raise ``DataError`` if a question has two answers of the same sample number."""
    counts = Counter((one.id, one.sample) for one in responses)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: {len(twice):,} answers are there twice, first id {twice[0][0]!r} "
            f"sample {twice[0][1]}; keep one of each"
        )


def _numbered(responses: Sequence[Response], where: str) -> list[Response]:
    """Number the answers to each question, which all have to have as many."""
    counts = Counter(one.id for one in responses)
    usual = Counter(counts.values()).most_common(1)[0][0]
    other = [name for name, count in counts.items() if count != usual]
    if other:
        raise DataError(
            f"{where}: id {other[0]!r} is there {counts[other[0]]} times, most ids {usual} "
            f"({len(other):,} ids differ); remove the copies, or number the answers in a column `sample`"
        )
    seen: Counter[str] = Counter()
    numbered = []
    for one in responses:
        numbered.append(replace(one, sample=seen[one.id]))
        seen[one.id] += 1
    return numbered


def _response(row: Row, benchmark: Benchmark) -> Response:
    if row.error:
        raise DataError(f"{row.where}: {row.error}")
    plain = "id" in row.values and "response" in row.values
    if benchmark.read is None or (plain and set(row.values) <= set(COLUMNS)):
        return plain_response(row.values, row.where)
    try:
        return benchmark.read(row.values)
    except (DataError, KeyError, TypeError, ValueError) as error:
        if plain:
            return plain_response(row.values, row.where)
        what = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{row.where} is not of {benchmark.name}'s output format ({what}), nor plain: {_NEEDED}"
        ) from error


def plain_response(values: Mapping[str, Any], where: str) -> Response:
    """Make a response of a plain record; other columns are passed over.

    Raises:
        DataError: a column is missing, or holds what it cannot; ``where`` begins the message.
    """
    missing = [column for column in COLUMNS[:2] if column not in values]
    if missing:
        there = ", ".join(map(str, list(values)[:12])) or "none"
        raise DataError(f"{where} has no column {' or '.join(missing)} (it has: {there}); {_NEEDED}")
    if values["id"] is None or not str(values["id"]).strip():
        raise DataError(f"{where}: the id is empty; write the question's id as it is in the data")
    return Response(
        id=_text(values, "id", where) or "",
        text=_text(values, "response", where) or "",
        sample=_whole(values, "sample", where) or 0,
        extraction=_text(values, "extraction", where),
        finished=_truth(values, "finished", where),
        tokens=_whole(values, "tokens", where),
    )


def _text(values: Mapping[str, Any], column: str, where: str) -> str | None:
    value = values.get(column)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise DataError(f"{where}: {column} is a {type(value).__name__}, it must be a text")


def _whole(values: Mapping[str, Any], column: str, where: str) -> int | None:
    value = values.get(column)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise DataError(f"{where}: {column} is {value!r}, it must be a whole number from 0")


def _truth(values: Mapping[str, Any], column: str, where: str) -> bool | None:
    value = values.get(column)
    if value is None or isinstance(value, bool):
        return value
    raise DataError(f"{where}: {column} is {value!r}, it must be true, false or null")
