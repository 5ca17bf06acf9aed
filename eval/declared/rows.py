"""Rows of a declared benchmark as examples: parts, filters, question, options, gold answer and images."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from data import DataError, Example
from data.readers import RawRow
from eval.benchmark import DataSource, inline_options
from eval.declared.schema import Answer, Columns, Data, Declaration, Options
from eval.declared.templates import Template, is_empty, value_at
from eval.loading import check_published, complete, published_example, published_files, published_rows
from rewards.extract.letters import letters_in
from rewards.extract.marked import boxed, tagged

# <image 1>, <image_1> and <image1> all mark an image in published data.
_MARK = re.compile(r"<image[ _]?(\d+)>")
_IMAGES = "_image_paths"
_MAX_LITERAL = 20_000


def load(declaration: Declaration, source: DataSource) -> list[Example]:
    """Read the rows of a benchmark, at most ``source.limit``. Raises ``DataError``."""
    data = declaration.data
    rows = (row for row in _numbered(_parts(data, declaration.title, source)) if _wanted(data, row))
    examples = (example_of(declaration, row) for row in islice(rows, source.limit))
    return complete(examples, declaration.title)


def _wanted(data: Data, row: RawRow) -> bool:
    left_out = any(pattern.search(str(row.values.get(column))) for column, pattern in data.without.items())
    return not left_out and matches(row.values, data.where)


def matches(values: Mapping[str, Any], where: Mapping[str, Sequence[str]]) -> bool:
    """Return whether every column has one of the values listed for it."""
    return all(str(value_at(values, column)) in wanted for column, wanted in where.items())


def _numbered(parts: Iterable[tuple[RawRow, str, str]]) -> Iterator[RawRow]:
    for number, (row, split, config) in enumerate(parts):
        added = {"_row": number, "_split": split, "_config": config}
        yield replace(row, values={**row.values, **added})


def _parts(data: Data, title: str, source: DataSource) -> Iterator[tuple[RawRow, str, str]]:
    """Yield the rows of all splits and configurations; a local file that holds several is read once."""
    if source.path is None and data.hub is None:
        raise DataError(f"{title} cannot be read from the hub; give a copy as data: {data.obtain}")
    read: set[tuple[Path, ...]] = set()
    unlimited = replace(source, limit=None)
    for split in [source.split] if source.split else data.splits:
        for config in data.configs or [""]:
            files, config = _files(data, title, source, split, config)
            if files and files in read:
                continue
            read.add(files)
            rows = published_rows(
                unlimited, hub=data.hub or "", config=config or None, split=split,
                file=data.file, hub_files=data.hub_files,
            )  # fmt: skip
            yield from ((row, split, config) for row in rows)
            if source.path is not None and not files:
                return  # the only file of a folder, which has all rows


def _files(
    data: Data, title: str, source: DataSource, split: str, config: str
) -> tuple[tuple[Path, ...], str]:
    """Return the local files of a part, none on the hub, and the configuration to look for.

    A copy of the only configuration need not have a folder of its name.
    """
    place = Path(source.path or "").expanduser()
    if source.path is None or not place.is_dir():
        return ((place,) if source.path else ()), config
    found = published_files(place, split=split, file=data.file, config=config or None)
    if found or not config:
        return found, config
    if len(data.configs) == 1:
        return published_files(place, split=split, file=data.file), ""
    raise DataError(
        f"{source.path} has no rows of {config!r}, the split {split!r}; {title} consists of the folders "
        f"{', '.join(data.configs)}; add those that are missing, or give one file"
    )


def example_of(declaration: Declaration, row: RawRow) -> Example:
    """Convert a row. Raises ``DataError`` if it lacks a column or has an unreadable one."""
    columns = declaration.columns
    _check(columns, declaration, row)
    choices = _choices(declaration.options, row)
    golds = _golds(declaration.answer, columns.answer, row)
    names, paths, positions = _images(columns, row)
    question = _text(columns.question, row)
    if declaration.options and declaration.options.within and not choices:
        choices, question = _with_table_options(question, row)
    values = {**row.values, _IMAGES: paths, "_golds": golds}
    return published_example(
        replace(row, values=values),
        id=_text(columns.id, row),
        question=_marked(question, positions),
        answer=golds[0] if golds else "",
        images=names,
        choices=[_marked(choice, positions) for choice in choices],
    )


def _check(columns: Columns, declaration: Declaration, row: RawRow) -> None:
    needed = [one for one in (columns.id, columns.question, columns.answer) if one.is_column]
    absent = [one.text for one in needed if not any(name.split(".")[0] in row.values for name in one.names)]
    check_published(row, absent, declaration.title)


def _text(template: Template, row: RawRow) -> str:
    value = template.value(row.values, row.where)
    return "" if is_empty(value) else str(value).strip()


def _choices(options: Options | None, row: RawRow) -> list[str]:
    if options is None:
        return []
    if options.within:
        return [text.rstrip(" ,;") for text in inline_options(_text(options.within, row))]
    if options.columns:
        cells = [row.values.get(name) for name in options.columns]
        # The reader of tables gathers columns A, B, … in one.
        found = row.values.get("choices") if cells == [None] * len(cells) else cells
        return _until_empty(found or [])
    value = options.column.value(row.values, row.where) if options.column else None
    return [str(one) for one in as_list(value, row.where)]


def _with_table_options(question: str, row: RawRow) -> tuple[list[str], str]:
    """Return the options of a table with columns A, B and so on, and the question with them."""
    choices = _until_empty(row.values.get("choices") or [])
    listed = ", ".join(f"{chr(65 + index)}: {choice}" for index, choice in enumerate(choices))
    return choices, f"{question}\nOptions: {listed}" if choices else question


def _until_empty(cells: Sequence[Any]) -> list[str]:
    end = next((index for index, cell in enumerate(cells) if is_empty(cell)), len(cells))
    return [str(cell).strip() for cell in cells[:end]]


def as_list(value: Any, where: str) -> list[Any]:
    """Return a list that a cell holds or writes as JSON or Python; a plain text is its only item.

    Raises:
        DataError: a text that begins as a list and is none; ``where`` begins the message.
    """
    if is_empty(value):
        return []
    if isinstance(value, Mapping):
        return [value[key] for key in sorted(value)]
    if not isinstance(value, str):
        return list(value) if isinstance(value, (list, tuple)) else [value]
    if not value.strip().startswith("["):
        return [value]
    for parse in (json.loads, ast.literal_eval):
        try:
            return list(parse(value[:_MAX_LITERAL].strip()))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise DataError(f"{where}: {value[:80]!r} begins as a list and is none")


def _golds(answer: Answer, column: Template, row: RawRow) -> list[str]:
    """Return all accepted gold answers, the first one first; empty if there is none."""
    value = column.value(row.values, row.where)
    if is_empty(value):
        return []
    values = _several(value, row.where) if answer.form == "list" else [value]
    return [
        answer.values.get(text, text) for one in values for text in _read_gold(answer.form, one, row.where)
    ]


def _several(value: Any, where: str) -> list[Any]:
    try:
        return as_list(value, where)
    except DataError:  # an interval such as [0, 1)
        return [value]


def _read_gold(form: str, value: Any, where: str) -> list[str]:
    text = str(value).strip()
    if form == "index":
        try:
            return [chr(65 + int(float(text)))]
        except ValueError:
            raise DataError(f"{where}: the answer {text[:40]!r} is not the index of an option") from None
    if form == "letter":
        return [", ".join(sorted(letters_in(text))) or text]
    if form in ("box", "tag"):
        found = boxed(text) if form == "box" else tagged(text)
        return [found.text.strip()] if found else []
    return [text]


def _images(columns: Columns, row: RawRow) -> tuple[list[str], list[str], dict[int, int] | None]:
    """Return columns with an image, paths from templates, and the images' positions by number."""
    names: list[str] = []
    paths: list[str] = []
    positions: dict[int, int] = {}
    for number, template in enumerate(columns.images, 1):
        value = template.value(row.values, row.where)
        if is_empty(value) or value == []:
            continue
        positions[number] = len(positions) + 1
        listed = isinstance(value, str) and value.strip().startswith("[")
        if template.is_column and not listed:
            names.append(template.name_in(row.values))
        else:
            paths += [str(path) for path in as_list(value, row.where)]
    # A single column lists all images, so that numbers are positions already.
    several = len(columns.images) > 1
    return [*names, *([_IMAGES] if paths else [])], paths, positions if several else None


def _marked(text: str, positions: Mapping[int, int] | None) -> str:
    """Return a text with ``<image2>`` for the second of the row's images, and no marker of an absent one."""
    if positions is None:
        return _MARK.sub(r"<image\1>", text)
    marks = {number: f"<image{position}>" for number, position in positions.items()}
    return _MARK.sub(lambda mark: marks.get(int(mark[1]), ""), text).strip()
