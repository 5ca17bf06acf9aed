"""Row readers for JSON, JSON Lines, CSV, TSV, parquet and Hugging Face datasets; rows come one at a time."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from data.example import DataError

if TYPE_CHECKING:
    from datasets import Dataset


Values = Mapping[str, Any]
LINES = (".jsonl", ".ndjson")
TABLES = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".json", *LINES, ".parquet", *TABLES)


@dataclass(frozen=True)
class RawRow:
    """One row as read, before its columns are mapped.

    Attributes:
        where: place in the source, for messages: ``train.jsonl:12``.
        index: from 0, over the whole source.
        values: the columns; empty when ``error`` is set.
        folder: base of relative image paths; None when the rows come from no folder.
        reload: reads the values again, so that embedded images need not stay in memory; None when they do.
        error: why the row could not be read.
    """

    where: str
    index: int
    values: Values = field(default_factory=dict)
    folder: Path | None = None
    reload: Callable[[], Values] | None = None
    error: str | None = None


def read_rows(
    path: str | Path | Sequence[Values],
    *,
    split: str | None = None,
    name: str | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> Iterator[RawRow]:
    """Read rows lazily.

    Args:
        path: a ``.json``, ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file; a folder that holds one, or a
            saved Hugging Face dataset; a hub name; or rows that are already in memory.
        split: split of a dataset, or the stem of a file in the folder.
        name: configuration of a hub dataset.
        offset: number of rows to skip at the start.
        limit: largest number of rows to read.

    Raises:
        DataError: nothing there, or an unknown format. A single bad line is a ``RawRow`` with ``error``.
    """
    stop = None if limit is None else offset + limit
    if not isinstance(path, (str, Path)):
        if hasattr(path, "with_format"):
            return read_dataset(path, "dataset", folder=None, start=offset, stop=stop)
        return islice(_in_memory(path), offset, stop)
    file = _local_file(path, split)
    if file is None or file.suffix == ".parquet":
        return read_hub(file or path, split=split, name=name, start=offset, stop=stop)
    if not file.stat().st_size:
        raise DataError(f"{file} is empty; give a file with at least one row")
    if file.suffix in TABLES:
        return read_table(file, offset, stop)
    return read_jsonl(file, offset, stop) if _is_json_lines(file) else islice(read_json(file), offset, stop)


def read_json(file: Path) -> Iterator[RawRow]:
    """Read a list of rows, or an object that maps ids to rows; the whole file is parsed at once."""
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"), object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} is not JSON: {error}; fix it, or name it .jsonl if it has one row per line"
        ) from error
    if isinstance(content, dict) and content and all(isinstance(row, dict) for row in content.values()):
        pairs = [(f"{file.name}[{key!r}]", {"id": key, **row}) for key, row in content.items()]
    elif isinstance(content, list):
        pairs = [(f"{file.name}[{index}]", row) for index, row in enumerate(content)]
    else:
        raise DataError(f"{file} holds neither a list of rows nor an object of rows by id")
    for index, (where, row) in enumerate(pairs):
        yield _row(row, where, index, file.parent)


def read_jsonl(file: Path, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
    """Read one row per line; blank lines are skipped."""
    index = 0
    with file.open("rb") as lines:
        position = 0
        for number, line in enumerate(lines, 1):
            here, position = position, position + len(line)
            if not line.strip():
                continue
            if stop is not None and index >= stop:
                return
            if index >= start:
                yield _parsed_line(file, number, here, line, index)
            index += 1


def read_table(file: Path, start: int = 0, stop: int | None = None) -> Iterator[RawRow]:
    """Read a CSV or TSV file with column names in its first line; every value is a text.

    Columns A, B, … without a column of choices are the options, as in the files of VLMEvalKit.
    """
    # The base64 text of an image is longer than the module's limit of 128 KB a field.
    csv.field_size_limit(1 << 30)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, delimiter=TABLES[file.suffix])
        try:
            for index, values in enumerate(rows):
                if stop is not None and index >= stop:
                    return
                if index >= start:
                    yield _table_row(file, rows.line_num, index, values)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{file}, line {rows.line_num}: not {file.suffix}: {error}; fix the file"
            ) from error


def _table_row(file: Path, number: int, index: int, values: dict[Any, Any]) -> RawRow:
    where = f"{file.name}:{number}"
    if None in values or None in values.values():
        return RawRow(where, index, error="the line has more or fewer fields than the first line")
    letters = list(takewhile(values.get, ascii_uppercase))
    if len(letters) > 1 and not {"choices", "options"} & set(values):
        choices = [values.pop(letter) for letter in letters]
        values = {name: value for name, value in values.items() if value or name not in ascii_uppercase}
        values["choices"] = choices
    return _row(values, where, index, file.parent)


def _parsed_line(file: Path, number: int, position: int, line: bytes, index: int) -> RawRow:
    where = f"{file.name}:{number}"
    try:
        values = _parse(line)
    except (ValueError, RecursionError) as error:
        return RawRow(where, index, error=f"not JSON: {error}")
    return _row(values, where, index, file.parent, partial(_line_at, file, position))


def _line_at(file: Path, position: int) -> Values:
    with file.open("rb") as lines:
        lines.seek(position)
        values: Values = _parse(lines.readline())
        return values


def _parse(line: bytes) -> Any:
    return json.loads(line.decode("utf-8-sig"), object_pairs_hook=reject_duplicate_keys)


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of the pairs, for ``json.loads``. Raises ``ValueError`` if a key occurs twice."""
    # Python's json keeps the last of two equal keys; with rows keyed by id that would drop a row silently.
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {repeated!r} occurs twice in one object")
    return values


def _row(
    values: Any, where: str, index: int, folder: Path | None, reload: Callable[[], Values] | None = None
) -> RawRow:
    if isinstance(values, Mapping):
        return RawRow(where, index, values, folder, reload)
    return RawRow(where, index, error=f"a {type(values).__name__} instead of an object with columns")


def _in_memory(rows: Sequence[Values]) -> Iterator[RawRow]:
    for index, values in enumerate(rows):
        yield _row(values, f"row {index}", index, Path.cwd())


def _is_json_lines(file: Path) -> bool:
    """Return whether the file has one row per line; many data sets name such a file .json."""
    if file.suffix in LINES:
        return True
    with file.open("rb") as lines:
        first, second = lines.readline(), lines.readline()
    try:
        return second.lstrip()[:1] == b"{" and isinstance(_parse(first), dict)
    except (ValueError, RecursionError):
        return False


def _local_file(path: str | Path, split: str | None) -> Path | None:
    """Return the file to read, or None for a source that the datasets library has to load."""
    place = Path(path).expanduser()
    if place.is_file():
        return _known_file(place, split)
    if place.is_dir():
        return _file_in_folder(place, split)
    if place.suffix in SUFFIXES or len(place.parts) > 2 or str(path).startswith((".", "/", "~")):
        raise DataError(f"{path} does not exist; relative paths start at the current directory")
    return None


def _known_file(file: Path, split: str | None) -> Path:
    if file.suffix not in SUFFIXES:
        raise DataError(f"{file}: data files end with {', '.join(SUFFIXES)}, not {file.suffix!r}")
    if not os.access(file, os.R_OK):
        raise DataError(f"{file} is not readable for this user; change its permissions")
    if split is not None:
        raise DataError(f"{file} is a single file and has no split {split!r}; leave split out")
    return file


def _file_in_folder(folder: Path, split: str | None) -> Path | None:
    if any((folder / marker).exists() for marker in ("state.json", "dataset_dict.json")):
        return None
    files = [file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file()]
    chosen = [file for file in files if split in (None, file.stem)]
    return _known_file(chosen[0], None) if len(chosen) == 1 else None


# Rows in memory at a time while reading; each may hold megabytes of encoded images.
BATCH = 16


def read_hub(
    path: str | Path, *, split: str | None, name: str | None, start: int, stop: int | None
) -> Iterator[RawRow]:
    """Read a parquet file, a dataset saved to a folder, a folder of data files, or a dataset of the hub.

    Raises:
        DataError: it cannot be loaded, or has several splits and none was named.
    """
    local = Path(path).expanduser()
    try:
        loaded = _load(local, str(path), split, name)
    except Exception as error:  # errors of the library, of pyarrow, of the network and of the system
        what = (
            "cannot be loaded"
            if local.exists()
            else "is neither a local file or folder nor a dataset of the hub"
        )
        raise DataError(f"{path} {what}: {error or type(error).__name__}") from error
    folder = local if local.is_dir() else local.parent if local.is_file() else None
    return read_dataset(
        _select_split(loaded, str(path), split), local.name, folder=folder, start=start, stop=stop
    )


def read_dataset(
    dataset: Dataset, title: str, *, folder: Path | None, start: int = 0, stop: int | None = None
) -> Iterator[RawRow]:
    """Read a ``datasets.Dataset``; images stay encoded."""
    # The arrow format returns the stored bytes; the default would decode every image while rows are listed.
    stored = dataset.with_format("arrow")
    end = len(stored) if stop is None else min(stop, len(stored))
    for first in range(start, end, BATCH):
        for index, values in enumerate(stored[first : min(first + BATCH, end)].to_pylist(), first):
            yield RawRow(f"{title}[{index}]", index, values, folder, partial(_values, stored, index))


def _values(stored: Dataset, index: int) -> Mapping[str, Any]:
    values: Mapping[str, Any] = stored[index : index + 1].to_pylist()[0]
    return values


def _load(local: Path, path: str, split: str | None, name: str | None) -> Any:
    import datasets

    if local.is_file():
        return datasets.load_dataset("parquet", data_files=str(local), split="train")
    if (local / "state.json").exists() or (local / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(local))
    return datasets.load_dataset(str(local) if local.is_dir() else path, name)


def _select_split(loaded: Any, path: str, split: str | None) -> Dataset:
    if not isinstance(loaded, Mapping):
        return loaded
    splits = list(loaded)
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        problem = "has several splits" if split is None else f"has no split {split!r}"
        raise DataError(f"{path} {problem}; set split to one of {', '.join(splits)}")
    return loaded[split]
