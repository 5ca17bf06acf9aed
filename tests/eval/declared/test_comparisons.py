"""Comparisons of an answer with the gold answer."""

from __future__ import annotations

import pytest

from eval.declared import comparisons
from rewards import Status


@pytest.mark.parametrize(
    ("answer", "gold", "choices", "score"),
    [
        ("B", "B", (), 1),
        ("(B) dog", "B", ("cat", "dog"), 1),
        ("dog", "B", ("cat", "dog"), 1),
        ("C, A", "A, C", (), 1),
        ("A", "A, C", (), 0),
        ("A, C", "C", (), 0),
        ("cow", "B", ("cat", "dog"), 0),
    ],
)
def test_letters_are_compared_as_sets(answer: str, gold: str, choices: tuple[str, ...], score: float) -> None:
    assert comparisons.letter(answer, gold, choices).score == score


def test_a_gold_answer_that_names_no_option_is_unscored() -> None:
    assert comparisons.letter("A", "3", ()).status is Status.UNPARSABLE_GOLD


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("Yes, it is", "correct"),
        ("yes", "correct"),
        ("No", "wrong"),
        ("Yes or no", "unparsable_answer"),
        ("Nothing of it", "unparsable_answer"),
    ],
)
def test_yes_and_no_are_whole_words(answer: str, status: str) -> None:
    assert comparisons.yes_no(answer, "Yes").status.value == status


@pytest.mark.parametrize(
    ("answer", "how", "score"),
    [
        ("100", {}, 1),
        ("100.5", {}, 0),
        ("100.5", {"absolute": 0.5}, 1),
        ("102", {"relative": 0.02}, 1),
        ("102.1", {"relative": 0.02}, 0),
        ("about 100 kg", {}, 1),
        ("many", {}, 0),
    ],
)
def test_numbers_are_compared_within_a_tolerance(answer: str, how: dict[str, float], score: float) -> None:
    assert comparisons.number(answer, "100", **how).score == score


def test_a_gold_answer_that_is_no_number_is_unscored() -> None:
    assert comparisons.number("1", "many").status is Status.UNPARSABLE_GOLD


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("10.5", "10", True),
        ("10.51", "10", False),
        ("-9.5", "-10", True),
        ("9.6%", "10%", True),
        ("0.1", "10%", True),
        ("10", "10%", False),
        ("0", "0", True),
        ("0.0", "0", False),
        ("inf", "10", False),
        ("Peru", "peru", True),
        ("peru ", "Peru", True),
        ("1,000", "1000", False),
    ],
)
def test_relaxed_is_five_percent_or_the_same_word(answer: str, gold: str, right: bool) -> None:
    assert comparisons.relaxed(answer, [gold]).score == float(right)


@pytest.mark.parametrize(
    ("answer", "golds", "score"),
    [
        ("abcd", ["abcd"], 1),
        ("ABCD", ["xyz", "abcd"], 1),
        ("abcx", ["abcd"], 0.75),
        ("abxy", ["abcd"], 0.5),
        ("axyz", ["abcd"], 0),
        ("", [""], 1),
    ],
)
def test_anls_is_zero_below_a_half(answer: str, golds: list[str], score: float) -> None:
    assert comparisons.anls(answer, golds).score == pytest.approx(score)


def test_anls_reads_a_bounded_part_of_a_text() -> None:
    assert comparisons.anls("a" * 1_000_000, ["a" * 1_000_000]).score == 1


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("<answer>7</answer>", "correct"),
        ("<answer> 7 </answer> <answer>8</answer>", "correct"),
        ("<answer>seven</answer>", "no_answer"),
        ("7", "no_answer"),
        ("<answer>8</answer>", "wrong"),
        (f"<answer>{'9' * 5000}</answer>", "no_answer"),
    ],
)
def test_a_tagged_number_is_whole_and_alone(response: str, status: str) -> None:
    assert comparisons.tagged_number(response, "7").status.value == status


def test_texts_are_the_same_but_for_case_and_stops() -> None:
    assert comparisons.same_text("The red car.", ["blue", "red car"]).score == 1
    assert comparisons.same_text("red cars", ["red car"]).score == 0
