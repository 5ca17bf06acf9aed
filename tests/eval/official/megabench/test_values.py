"""Values in MEGA-Bench's answers, read within bounds."""

from __future__ import annotations

import pytest

from eval.official.megabench.values import as_list, as_mapping, as_set, literal, structure


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 'a']", [1, "a"]),
        ("a, b", ["a", "b"]),
        ("(a, b)", ["a", "b"]),
        ("(a, b", []),
        ("", []),
        ("3", [3]),
        ([1], [1]),
    ],
)
def test_lists_are_read_with_and_without_brackets(text: object, value: list[object]) -> None:
    assert as_list(text) == value


def test_members_of_sets_may_be_lists_and_mappings() -> None:
    assert as_set("[[1, 2], {'a': 1}]") == {(1, 2), frozenset({("a", 1)})}


def test_an_empty_mapping_is_none() -> None:
    with pytest.raises(ValueError, match="is no mapping"):
        as_mapping("{}")


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, "1" * 30_000, "open('x')", "a" * 30_000, "{1: 2"])
def test_a_text_beyond_the_limits_stays_a_text(text: str) -> None:
    assert literal(text) == text


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["[" * 50_000, "[{" * 20_000 + "}]" * 20_000, "[1" + ", [" * 30_000])
def test_brackets_without_end_are_searched_in_bounded_time(text: str) -> None:
    assert structure(text) is None or isinstance(structure(text), (list, dict))
