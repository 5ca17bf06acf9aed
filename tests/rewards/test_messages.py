"""Hints for unknown names, and shortened texts."""

from __future__ import annotations

import pytest

from rewards.messages import closest, nearest, short


def test_similar_names_are_suggested_and_otherwise_all_names() -> None:
    assert nearest("acuracy", ["format", "accuracy"]) == "did you mean 'accuracy'?"
    assert nearest("zzz", ["format", "accuracy"]) == "known are accuracy, format"


def test_the_closest_name_reaches_the_cutoff() -> None:
    assert closest("acuracy", {"format": 1, "accuracy": 2}) == "accuracy"
    assert closest("zzz", ["format"]) is None
    assert closest("zzz", ["format"], cutoff=0.0) == "format"
    assert closest("zzz", []) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"limit": 11}, "one two six"),
        ({"limit": 10}, "one two s…"),
        ({"limit": 10, "keep": 7}, "one two…"),
        ({"limit": 10, "end": True}, "…e two six"),
    ],
)
def test_a_long_text_is_cut_to_one_line(options: dict[str, int], expected: str) -> None:
    assert short(" one two\n six", **options) == expected
