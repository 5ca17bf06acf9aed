"""Names of columns: those of toolkits, those that the user names, and paths into nested values."""

from __future__ import annotations

import pytest

from data import DataError
from data.readers import RawRow
from eval.predictions.columns import columns_of, lookup, value_of
from mm_cpgd.errors import UserError


def rows(*values: dict[str, object]) -> list[RawRow]:
    return [RawRow(f"a:{index}", index, one) for index, one in enumerate(values)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", 1), ("b.c", 2), ("b.d.1.e", 3), ("b.d.7.e", None), ("b.x", None), ("x", None), ("a.b", None)],
)
def test_a_path_leads_into_objects_and_lists(name: str, value: object) -> None:
    assert lookup({"a": 1, "b": {"c": 2, "d": [{}, {"e": 3}]}}, name) == value


def test_a_column_whose_name_has_a_dot_comes_before_a_path() -> None:
    assert lookup({"a.b": 1, "a": {"b": 2}}, "a.b") == 1


def test_the_column_with_the_most_ids_of_the_data_has_the_ids() -> None:
    found = columns_of(rows({"id": 0, "pid": 11}, {"id": 1, "pid": 12}), {}, {"11", "12", "1"}, "a")
    assert found["id"] == ("pid",)


def test_without_data_the_usual_name_comes_first() -> None:
    assert columns_of(rows({"index": 1, "id": 2}), {}, None, "a")["id"][0] == "id"


def test_a_row_without_the_first_column_uses_the_next_one() -> None:
    own = rows({"resps": ["x"], "filtered_resps": "y"}, {"filtered_resps": "z"})
    columns = columns_of(own, {}, None, "a")
    assert [value_of(one.values, columns, "response") for one in own] == [["x"], "z"]


def test_a_named_column_replaces_the_usual_ones() -> None:
    own = rows({"id": 1, "key": 2, "response": "x"})
    assert columns_of(own, {"id": "key"}, {"1"}, "a")["id"] == ("key",)


def test_a_named_column_that_no_row_has_is_reported_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"a has no column 'respons'.*response"):
        columns_of(rows({"id": 1, "response": "x"}), {"response": "respons"}, None, "a")


def test_an_unknown_field_is_reported() -> None:
    with pytest.raises(UserError, match=r"predictions have no field 'ids'.*id"):
        columns_of(rows({"id": 1}), {"ids": "id"}, None, "a")
