"""Lookup in tables of every form that rows have."""

from __future__ import annotations

from typing import Any

import pytest

from data import Example
from mm_cpgd.environments import ToolError
from mm_cpgd.environments.tools.table import lookup, read_table

ROWS = [["name", "price"], ["apple", "1.5"], ["pear", "2"]]


@pytest.mark.parametrize(
    "table",
    [
        ROWS,
        [{"name": "apple", "price": 1.5}, {"name": "pear", "price": 2}],
        "name | price\napple | 1.5\npear | 2",
        "| name | price |\n|---|---:|\n| apple | 1.5 |\n| pear | 2 |",
        "name\tprice\napple\t1.5\npear\t2\n",
        "name,price\napple,1.5\npear,2",
    ],
)
def test_every_form_is_the_same_table(table: Any) -> None:
    assert read_table(table) == ROWS


def test_cells_are_found_by_name_or_number(example: Example) -> None:
    assert lookup(example, "apple", "price") == "1.50"
    assert lookup(example, " PEAR ", "Price") == "2"
    assert lookup(example, "2", "1") == "pear"


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ("aple", "price", "no row 'aple': did you mean 'apple'"),
        ("apple", "cost", "no column 'cost': known are name, price"),
        ("3", "price", "no row '3'"),
        ("0", "price", "no row '0'"),
        ("9" * 5_000, "price", "no row"),
    ],
)
def test_unknown_names_are_told(example: Example, row: str, column: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        lookup(example, row, column)


@pytest.mark.parametrize("table", [None, "", "one line", [], [[]], 3, [["a"]]])
def test_what_is_no_table_is_told(table: Any) -> None:
    with pytest.raises(ToolError, match="no table"):
        read_table(table)


def test_large_tables_are_refused() -> None:
    with pytest.raises(ToolError, match="more than 10,000 cells"):
        read_table([["x"] * 101] * 101)
