"""Ids of a file in the spelling of the data."""

from __future__ import annotations

import pytest

from data import Example
from eval.benchmark import Response
from eval.predictions.ids import with_data_ids, with_position_as_id
from eval.predictions.records import Record


def renamed(name: str, *known: str) -> str:
    examples = [Example(one, "?", "4") for one in known]
    return with_data_ids([Record("a:1", Response(name, "x"))], examples, "a")[0][0].response.id


@pytest.mark.parametrize(
    ("name", "known", "id_"),
    [
        ("11.0", ("11", "12"), "11"),
        ("11", ("11.0",), "11.0"),
        (" 11", ("11",), "11"),
        ("11", ("0011",), "0011"),
        ("11.0", ("11.0", "11"), "11.0"),
        ("0011", ("11", "11.0"), "0011"),
        ("13.0", ("11",), "13.0"),
    ],
)
def test_an_id_takes_the_spelling_of_the_data_where_only_one_is_meant(
    name: str, known: tuple[str, ...], id_: str
) -> None:
    assert renamed(name, *known) == id_


def test_a_position_is_the_id_of_that_row_and_gives_a_warning() -> None:
    records = [Record("a:1", Response("", "x"), position=1), Record("a:2", Response("", "y"), position=7)]
    found, (warning,) = with_data_ids(records, [Example("p", "?", "4"), Example("q", "?", "4")], "a")
    assert [one.response.id for one in found] == ["q", "row 7"]
    assert "a has no ids: its doc_id were taken for the numbers of the data's rows" in warning


def test_without_data_a_position_is_the_id_itself() -> None:
    assert with_position_as_id(Record("a:1", Response("", "x"), position=3)).response.id == "3"
