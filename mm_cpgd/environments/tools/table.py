"""Lookup in the table of an example, which stands in its ``meta``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.example import Example
from mm_cpgd.environments.coordinates import ToolError
from rewards.messages import nearest, short

# The column of ``Example.meta`` that holds the table.
COLUMN = "table"
MAX_CELLS = 10_000
MAX_LISTED = 12


def lookup(example: Example, row: str, column: str) -> str:
    """Look up a cell of the table of the question.

    Args:
        row: text of the first cell of the row, or the number of the row, counted from 1.
        column: header of the column, or its number, counted from 1.
        example: given by the environment.
    """
    header, *body = read_table(example.meta.get(COLUMN))
    place = _find(column, header, "column")
    cells = body[_find(row, [line[0] if line else "" for line in body], "row")]
    return cells[place] if place < len(cells) else ""


def read_table(value: Any) -> list[list[str]]:
    """Return a table as rows of texts, the header first.

    Args:
        value: rows as mappings or as lists, the header first; or a text of lines, with cells between ``|``,
            tabs or commas.

    Raises:
        ToolError: there is no table, or one of more than ``MAX_CELLS`` cells.
        view: given by the environment.
    """
    if isinstance(value, str):
        lines = [line for line in value.splitlines() if line.strip(" |\t-:+")]
        rows = [_cells(line) for line in lines]
    elif isinstance(value, Sequence) and value and all(isinstance(one, Mapping) for one in value):
        header = list(value[0])
        rows = [header, *([one.get(key, "") for key in header] for one in value)]
    elif isinstance(value, Sequence) and all(isinstance(one, Sequence) for one in value):
        rows = [list(one) for one in value]
    else:
        rows = []
    if len(rows) < 2 or not rows[0]:
        raise ToolError("this question has no table")
    if sum(map(len, rows)) > MAX_CELLS:
        raise ToolError(f"the table of this question has more than {MAX_CELLS:,} cells")
    return [[str(cell).strip() for cell in row] for row in rows]


def _cells(line: str) -> list[str]:
    mark = next((mark for mark in ("|", "\t", ",") if mark in line), "|")
    return line.strip().strip("|").split(mark) if mark == "|" else line.split(mark)


def _find(name: str, names: Sequence[str], what: str) -> int:
    folded = [one.casefold() for one in names]
    wanted = name.strip().casefold()
    if wanted in folded:
        return folded.index(wanted)
    if wanted.isdecimal() and 1 <= int(wanted[:9]) <= len(names):
        return int(wanted[:9]) - 1
    hint = nearest(short(name, 60), [short(one, 40) for one in names[:MAX_LISTED]])
    raise ToolError(f"the table has no {what} {short(name, 60)!r}: {hint}")
