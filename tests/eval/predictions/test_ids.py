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


@pytest.mark.parametrize(
    ("names", "data"),
    [
        (["mathvision_11", "mathvision_12"], ["11", "12"]),
        (["test-11.png", "test-12.png"], ["11", "12"]),
        (["mathvision_11"], ["11", "12"]),
        (["MMMU/val_a", "MMMU/val_b"], ["val_a", "val_b"]),
        (["q011", "q012"], ["11", "12"]),
    ],
)
def test_a_text_around_all_ids_is_taken_off_with_a_warning(names: list[str], data: list[str]) -> None:
    records = [Record("a:1", Response(name, "x")) for name in names]
    found, (warning,) = with_data_ids(records, [Example(one, "?", "4") for one in data], "a")
    assert [one.response.id for one in found] == data[: len(names)]
    assert f"{names[0]!r} was taken for {data[0]!r}" in warning


@pytest.mark.parametrize(
    "names",
    [
        ["mathvision_11", "12"],
        ["mathvision_11", "other_12"],
        ["mathvision_11", "mathvision_99"],
        ["111", "112"],
    ],
)
def test_ids_with_different_texts_around_them_stay(names: list[str]) -> None:
    records = [Record("a:1", Response(name, "x")) for name in names]
    found, warnings = with_data_ids(records, [Example(one, "?", "4") for one in ("11", "12")], "a")
    assert [one.response.id for one in found] == names
    assert not warnings
