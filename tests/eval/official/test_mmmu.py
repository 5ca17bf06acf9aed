"""MMMU's and MMMU-Pro's rules, on responses whose verdicts follow from their description."""

from __future__ import annotations

import pytest

from eval.official.mmmu import (
    grade,
    grade_pro,
    matches_open,
    normalised,
    open_values,
    pick_option,
    pick_option_pro,
)
from rewards import Status

OPTIONS = ["red fox", "grey wolf", "brown bear", "snow hare"]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("First (A), then (C).", "C"),
        ("(A) is named in parentheses, and C is not", "A"),
        ("C or B or C then", "C"),
        ("It must be the grey wolf in the end", "B"),
        ("the grey wolf", None),
        ("The Grey Wolf chases the snow hare over there", "D"),
        ("B: it is", None),
        ("unclear", None),
        ("", None),
    ],
)
def test_mmmu_takes_parentheses_then_letters_then_texts(response: str, letter: str | None) -> None:
    assert pick_option(response, OPTIONS) == letter


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A is wrong.\nAnswer: B", "B"),
        ("Answer: A\nAnswer: B", "B"),
        ("Answer: (C) brown bear", "C"),
        # Two letters of options follow, so the other forms are tried: "D " comes first among them.
        ("Answer: B or D ", "D"),
        ("B: it is", None),
        ("It is D.", "D"),
        ("so we choose B. Done", "B"),
        ("We see the brown bear in the picture", "C"),
    ],
)
def test_mmmu_pro_first_reads_the_last_answer(response: str, letter: str | None) -> None:
    assert pick_option_pro(response, OPTIONS) == letter


def test_a_response_without_an_option_has_no_answer() -> None:
    for verdict in (grade("who knows", ["A"], OPTIONS), grade_pro("who knows", "A", OPTIONS)):
        assert (verdict.score, verdict.status) == (0, Status.NO_ANSWER)


@pytest.mark.parametrize(
    ("response", "golds", "right"),
    [
        ("The answer is 12.97.", ["12.97"], True),
        ("It is 12.971", ["12.97"], True),
        ("It is 12.98", ["12.97"], False),
        ("x = 1,200", ["1200"], True),
        ("The result is the transformation of cells", ["Transformation"], True),
        ("It is a", ["b"], False),
        ("therefore 24/7", ["24/7", "3.429"], True),
        ("4\nso it is 5", ["4"], False),
        ("4", ["4"], True),
        ("nothing", ["4"], False),
    ],
)
def test_open_answers_are_tails_of_lines_and_their_numbers(
    response: str, golds: list[str], right: bool
) -> None:
    assert grade(response, golds).score == float(right)


def test_values_are_the_tail_and_the_numbers_in_it() -> None:
    assert open_values("The mass is 3.14159 kg") == {"3.14159 kg", 3.14}


def test_a_single_character_matches_only_beside_a_space() -> None:
    assert normalised("B") == [" b", "b "]
    assert matches_open({"ab"}, ["b"]) is False
    assert matches_open({"a b"}, ["b"]) is True
