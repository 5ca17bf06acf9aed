"""The rules "numeric" and "counting"."""

from __future__ import annotations

import pytest

from rewards import Status, get_rule
from rewards.example import RewardExample as Example


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("9.5", 1.0),
        ("10.5", 1.0),
        ("9.49", 0.0),
        ("10.51", 0.0),
        ("19/2", 1.0),
        ("x = 10", 1.0),
        ("1e1", 1.0),
    ],
)
def test_a_number_within_the_relative_tolerance_is_right_ends_included(answer: str, score: float) -> None:
    assert get_rule("numeric", {"relative": 0.05})(answer, Example("10")).score == score


def test_the_larger_of_the_two_tolerances_counts() -> None:
    rule = get_rule("numeric", {"relative": 0.05, "absolute": 1})
    assert rule("11", Example("10")).score == 1.0
    assert rule("104", Example("100")).score == 1.0
    assert rule("106", Example("100")).score == 0.0


def test_without_a_tolerance_only_the_number_itself_is_right() -> None:
    assert get_rule("numeric")("0.50", Example("1/2")).score == 1.0
    assert get_rule("numeric")("0.5000001", Example("1/2")).score == 0.0


def test_a_number_that_is_no_fraction_is_computed() -> None:
    rule = get_rule("numeric", {"absolute": 0.001})
    assert rule("1.414", Example(r"\sqrt{2}")).score == 1.0
    assert rule("1.41", Example(r"\sqrt{2}")).score == 0.0


def test_units_convert_and_must_measure_the_same() -> None:
    rule = get_rule("numeric", {"relative": 0.01})
    assert rule("32 mm", Example("3.2 cm")).score == 1.0
    assert rule("32 cm", Example("3.2 cm")).score == 0.0
    assert rule("3.2 kg", Example("3.2 cm")).score == 0.0
    assert rule("3.2", Example("3.2 cm")).score == 1.0


@pytest.mark.parametrize(("answer", "gold"), [("50%", "0.5"), ("0.5", "50%"), ("50", "50%"), ("50%", "50")])
def test_percent_is_read_either_way(answer: str, gold: str) -> None:
    assert get_rule("numeric")(answer, Example(gold)).score == 1.0


def test_words_around_the_only_number_are_ignored_and_two_numbers_are_not() -> None:
    rule = get_rule("numeric", {"absolute": 0.1})
    assert rule("<answer>about 3.2, I would say</answer>", Example("3.25")).score == 1.0
    verdict = rule("<answer>3.2 or 4</answer>", Example("3.2"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)


def test_a_gold_answer_without_a_number_cannot_be_scored() -> None:
    assert get_rule("numeric")("3", Example("many")).status is Status.UNPARSABLE_GOLD


def test_a_tower_of_powers_is_refused_at_once() -> None:
    assert get_rule("numeric")("9^9^9^9", Example("3")).status is Status.UNPARSABLE_ANSWER


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("12", 12),
        ("1,234", 1234),
        ("There are 12 apples.", 12),
        ("twelve", 12),
        ("Twenty-one cars", 21),
        ("fifteen", 15),
        ("3 + 9 = 12", 12),
        ("十二个", 12),
        ("三十", 30),
        ("两只", 2),
        ("no birds", 0),
        ("没有", 0),
    ],
)
def test_a_count_is_read_in_digits_and_words(answer: str, count: int) -> None:
    assert get_rule("counting")(f"<answer>{answer}</answer>", Example(str(count))).score == 1.0
    assert get_rule("counting")(f"<answer>{answer}</answer>", Example(str(count + 1))).score == 0.0


@pytest.mark.parametrize("answer", ["5 or 6", "2.5", "-3", "many", "hundreds", "2x5"])
def test_several_numbers_or_none_are_no_count(answer: str) -> None:
    verdict = get_rule("counting")(f"<answer>{answer}</answer>", Example("5"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)


@pytest.mark.parametrize(("answer", "score"), [(7, 1), (6, 2 / 3), (8, 2 / 3), (5, 1 / 3), (4, 0), (700, 0)])
def test_near_misses_decrease_in_steps(answer: int, score: float) -> None:
    verdict = get_rule("counting", {"near": 2})(str(answer), Example("7"))
    assert verdict.score == pytest.approx(score, abs=1e-12)
