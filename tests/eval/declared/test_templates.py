"""Columns, paths and templates of a declaration."""

from __future__ import annotations

import math

import pytest

from data import DataError
from eval.declared.templates import compile_template, is_empty, value_at

ROW = {"id": 7, "about": {"grade": 4}, "a.b": "dotted", "hint": "nan", "text": "None", "L2-category": "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("id", 7),
        ("about.grade", 4),
        ("a.b", "dotted"),
        ("absent", None),
        ("absent or id", 7),
        ("hint or text", "None"),
        ("{{ id }}/{{ about.grade }}", "7/4"),
        ("{{ id % 5 }}", "2"),
        ("{{ row['L2-category'] }}", "x"),
        ("{{ hint | given }}{{ text | given }}", ""),
        ("{{ text }}", "None"),
        (r"{{ id }} in \boxed{}", r"7 in \boxed{}"),
    ],
)
def test_a_template_gives_a_value_of_the_row(text: str, value: object) -> None:
    assert compile_template(text).value(ROW, "rows[0]") == value


def test_an_absent_column_of_a_template_is_named_with_the_present_ones() -> None:
    with pytest.raises(DataError, match=r"rows\[0\]: 'unit' is undefined .*there are id, about"):
        compile_template("{{ unit }}").value(ROW, "rows[0]")


def test_a_template_that_fails_names_the_row() -> None:
    with pytest.raises(DataError, match=r"rows\[0\]: the template .* fails"):
        compile_template("{{ id | batch(0) | list }}").value(ROW, "rows[0]")


def test_a_template_reaches_nothing_but_values() -> None:
    with pytest.raises(DataError):
        compile_template("{{ id.__class__.__mro__[1].__subclasses__() }}").value(ROW, "rows[0]")


@pytest.mark.parametrize("text", ["", "  ", None, 3])
def test_what_is_no_text_is_no_template(text: object) -> None:
    with pytest.raises(ValueError, match="is no column and no template"):
        compile_template(text)


def test_cells_are_empty_by_what_tables_write_for_nothing() -> None:
    assert [is_empty(value) for value in (None, math.nan, "", " NaN ", "None", 0, False)] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_path_through_something_else_leads_nowhere() -> None:
    assert value_at({"about": "text"}, "about.grade") is None
