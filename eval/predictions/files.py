"""Rows of a predictions file: JSON, JSON Lines, CSV, TSV, xlsx or parquet, in gzip or another encoding."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data import DataError, read_rows
from data.readers import RawRow, reject_duplicate_keys
from eval.predictions.cells import cell

LINES, TABLES = (".jsonl", ".ndjson"), (".csv", ".tsv")
SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".xlsx", ".parquet")
# Decompressed bytes; more is no file of predictions.
LARGEST = 4 << 30
_CHUNK = 1 << 24
# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
# ST_Xstring of ECMA-376, part 1, 22.9.2.19.
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
# First line by which Excel is told what separates the columns.
_SEPARATOR = re.compile(r"sep=(.)\s*")
# Names of the only entry of an object around the rows.
_AROUND = ("predictions", "results", "responses", "data", "rows", "samples", "answers")
_RUN_AGAIN = "let the run that writes the file end, or remove that line; its question is then missing"


def rows_of(path: Path) -> list[RawRow]:
    """Read all rows of a file; ``.gz`` may follow its suffix.

    Raises:
        DataError: an unknown format, or a file that is cut off, in an unknown encoding or not of its format.
    """
    packed = path.suffix == ".gz"
    name = path.stem if packed else path.name
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES or (packed and suffix in (".xlsx", ".parquet")):
        raise DataError(f"{path}: {_other_format(suffix)}")
    if suffix == ".parquet":
        return list(read_rows(path))
    if suffix == ".xlsx":
        return list(_xlsx(path))
    text = _decoded(_unpacked(path) if packed else path.read_bytes(), path)
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with at least one row")
    if suffix in TABLES:
        return list(_table(text, name, suffix))
    return list(_json_lines(text, name)) if suffix in LINES else list(_json(text, name))


def _other_format(suffix: str) -> str:
    if suffix == ".pkl":
        return "a pickle can run code when it is read; convert one that you trust to .json"
    if suffix == ".xls":
        return "save the table as .xlsx or .csv"
    return (
        f"predictions files end with {', '.join(SUFFIXES)} (all text formats also with .gz), not {suffix!r}"
    )


def _unpacked(path: Path) -> bytes:
    parts, size = [], 0
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                parts.append(chunk)
                size += len(chunk)
                if size > LARGEST:
                    raise DataError(f"{path} holds more than {LARGEST:,} bytes; give a smaller file")
    except EOFError as error:
        raise DataError(f"{path} is cut off; copy it again, or {_RUN_AGAIN}") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; omit .gz if it is not compressed") from error
    return b"".join(parts)


def _decoded(content: bytes, path: Path) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:4]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    if content.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed; name it {path.name}.gz")
    if content.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a spreadsheet or an archive; name it .xlsx, or unpack it")
    try:
        return content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not {(encoding or 'utf-8').upper()}: {error.reason}; save the file as "
            "UTF-8, for instance with iconv"
        ) from error


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=reject_duplicate_keys)


def _json_lines(text: str, name: str) -> Iterator[RawRow]:
    # Not splitlines: a JSON text may contain U+2028, which is no end of a line there.
    end = "\n" if "\n" in text.strip() else "\r"
    lines = [(number, line) for number, line in enumerate(text.split(end), 1) if line.strip()]
    for index, (number, line) in enumerate(lines):
        where = f"{name}:{number}"
        try:
            values = _parsed(line)
        except (ValueError, RecursionError) as error:
            yield RawRow(where, index, error=_why(text, name, error, last=index == len(lines) - 1))
            return
        if len(lines) == 1 and isinstance(values, list):
            raise DataError(f"{where} is one JSON list, not a row a line; rename the file {_json_name(name)}")
        yield from _one(values, where, index)


def _why(text: str, name: str, error: Exception, *, last: bool) -> str:
    """Return why a line is not JSON: the file is one JSON value over several lines, or is cut off."""
    try:
        _parsed(text)
    except (ValueError, RecursionError):
        if "Extra data" in str(error):
            return f"several JSON values in a line ({error}); write one a line"
        if last and text[-1:] != "\n":
            return f"the last line is cut off ({error}); {_RUN_AGAIN}"
        return f"not JSON: {error}"
    return f"the file is one JSON value over several lines, not a row a line; rename it {_json_name(name)}"


def _json_name(name: str) -> str:
    return f"{Path(name).stem}.json"


def _json(text: str, name: str) -> Iterator[RawRow]:
    try:
        content = _parsed(text)
    except (ValueError, RecursionError) as error:
        # Many files of one row a line are named .json.
        first = text.lstrip().split("\n", 1)[0]
        if first.startswith("{") and _is_json(first):
            yield from _json_lines(text, name)
            return
        cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(text.rstrip()) - 1
        cut = (cut and text.rstrip()[-1] not in "]}") or "Unterminated" in str(error)
        what = "is cut off at its end" if cut else "is not JSON"
        raise DataError(
            f"{name} {what}: {error}; write the file again"
            + ("" if cut else ", or name it .jsonl if it has one row per line")
        ) from error
    yield from _rows_in(content, name)


def _is_json(text: str) -> bool:
    try:
        _parsed(text)
    except (ValueError, RecursionError):
        return False
    return True


def _rows_in(content: Any, name: str) -> Iterator[RawRow]:
    """Yield the rows of a list, of an object by id, or of the list in an object that wraps it."""
    if isinstance(content, dict) and len(content) == 1 and next(iter(content)) in _AROUND:
        content = next(iter(content.values()))
    if isinstance(content, dict) and {"id", "response"} <= content.keys():
        content = [content]
    if isinstance(content, list):
        for index, row in enumerate(content):
            yield from _one(row, f"{name}[{index}]", index)
    elif isinstance(content, dict) and content and all(map(_is_by_id, content.values())):
        for index, (key, row) in enumerate(content.items()):
            for values in _by_id(key, row):
                yield RawRow(f"{name}[{key!r}]", index, values)
    elif not content:
        return
    else:
        raise DataError(f"{name} holds neither a list of rows nor an object of rows or texts by id")


def _is_by_id(value: Any) -> bool:
    if isinstance(value, list):
        return all(one is None or isinstance(one, str) for one in value)
    return value is None or isinstance(value, (dict, str, int, float))


def _by_id(key: str, row: Any) -> list[dict[str, Any]]:
    """Return the rows of one entry: its columns, its text, or the texts of its samples."""
    if isinstance(row, dict):
        return [{"id": key, **row}]
    if isinstance(row, list):
        return [{"id": key, "response": text, "sample": sample} for sample, text in enumerate(row)]
    return [{"id": key, "response": row}]


def _one(values: Any, where: str, index: int) -> Iterator[RawRow]:
    if isinstance(values, Mapping):
        yield RawRow(where, index, values)
    else:
        yield RawRow(where, index, error=f"a {type(values).__name__} instead of an object with columns")


def _table(text: str, name: str, suffix: str) -> Iterator[RawRow]:
    """Read a table with column names in its first line, separated by the mark that this line has most of."""
    # A response may be longer than the module's limit of 128 KB a field.
    csv.field_size_limit(1 << 30)
    head, _, rest = text.partition("\n")
    if named := _SEPARATOR.fullmatch(head):
        text, head = f"\n{rest}", named[1]
    usual = "\t" if suffix == ".tsv" else ","
    mark = max((usual, ",", "\t", ";"), key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row or reader.line_num > 1]
    except csv.Error as error:
        raise DataError(
            f"{name}, line {reader.line_num}: not {suffix}: {error}; write the file again"
        ) from error
    yield from _with_names(rows, name)


def _with_names(rows: Iterable[tuple[int, list[Any]]], name: str) -> Iterator[RawRow]:
    """Yield the rows below the first one, which has the columns' names."""
    numbered = iter(rows)
    _, names = next(numbered, (0, []))
    columns = [str(column).strip() if column is not None else "" for column in names]
    twice = next((column for column in columns if column and columns.count(column) > 1), None)
    if twice:
        raise DataError(f"{name} has two columns {twice!r}; rename one of them")
    for index, (number, values) in enumerate(numbered):
        if len(values) != len(columns) and any(value not in (None, "") for value in values):
            yield RawRow(
                f"{name}:{number}", index, error="the line has more or fewer fields than the first line; "
                "is it cut off, or a text with line breaks not quoted?",
            )  # fmt: skip
        elif any(value not in (None, "") for value in values):
            pairs = zip(columns, map(cell, values), strict=True)
            yield RawRow(f"{name}:{number}", index, {column: value for column, value in pairs if column})


def _unescaped(value: Any) -> Any:
    """Return a text with the control characters that XML cannot hold, written as ``_x000C_``."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value) if isinstance(value, str) else value


def _xlsx(path: Path) -> Iterator[RawRow]:
    """Read the first sheet. Texts that look like formulas are texts."""
    try:
        import openpyxl
    except ImportError as error:
        raise DataError(
            f"{path}: reading .xlsx needs openpyxl: pip install 'mm-cpgd[xlsx]', or save the table as .csv"
        ) from error
    try:
        # data_only would give the stored result of a formula, and None for a response such as "=5".
        book = openpyxl.load_workbook(path, read_only=True, data_only=False)
        rows = [list(map(_unescaped, row)) for row in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # errors of the library, of its XML parser and of zipfile
        raise DataError(
            f"{path} is not .xlsx: {error or type(error).__name__}; write the file again"
        ) from error
    yield from _with_names(enumerate(rows, 1), path.name)
