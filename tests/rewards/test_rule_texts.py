"""The rules for free text, by scores worked out by hand."""

from __future__ import annotations

import math

import pytest

from rewards import Status, get_rule
from rewards.example import RewardRow as Row
from rewards.rules.common import words

GOLD = Row("The cat sat on the mat.")


def test_words_are_cut_at_punctuation_and_chinese_at_each_sign() -> None:
    assert words("The cat’s 3.5 m, 两只Cats") == ["the", "cat’s", "3.5", "m", "两", "只", "cats"]


def test_edit_similarity_is_the_share_of_characters_that_stay() -> None:
    # kitten → sitting: two replaced, one added, of seven.
    assert get_rule("edit_similarity")("kitten", Row("sitting")).score == pytest.approx(1 - 3 / 7, abs=1e-12)


def test_edit_similarity_forgives_spelling_unless_told_otherwise() -> None:
    assert get_rule("edit_similarity")("The Cat.", Row("cat")).score == 1.0
    assert get_rule("edit_similarity", {"normalise": False})("Cat", Row("cat")).score == pytest.approx(2 / 3)


def test_rouge_l_is_f1_of_the_longest_common_subsequence() -> None:
    # "cat on the mat" of 5 words answered and 6 wanted: P = 4/5, R = 4/6.
    verdict = get_rule("rouge_l")("a cat on the mat", GOLD)
    assert verdict.score == pytest.approx(8 / 11, abs=1e-12)
    assert (verdict.status, verdict.reason) == (Status.PARTIAL, "ROUGE-L 0.727")


def test_rouge_l_keeps_order() -> None:
    # Of "mat sat cat" only one word at a time is in the order of the gold text.
    assert get_rule("rouge_l")("mat sat cat", GOLD).score == pytest.approx(2 / 9, abs=1e-12)


def test_bleu_is_the_mean_precision_times_the_brevity_penalty() -> None:
    # 4/5, 2/4, 1/3 and none of 2 (0.1/2 by the smoothing), 5 words for 6.
    expected = math.exp(1 - 6 / 5) * (4 / 5 * 2 / 4 * 1 / 3 * 0.1 / 2) ** 0.25
    assert get_rule("bleu")("a cat on the mat", GOLD).score == pytest.approx(expected, abs=1e-8)


def test_bleu_of_a_shorter_order_looks_at_words_alone() -> None:
    expected = math.exp(1 - 6 / 5) * 4 / 5
    assert get_rule("bleu", {"order": 1})("a cat on the mat", GOLD).score == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("rule", ["edit_similarity", "rouge_l", "bleu"])
def test_the_gold_text_itself_is_right_and_another_script_wrong(rule: str) -> None:
    assert get_rule(rule)(GOLD.answer, GOLD).status is Status.CORRECT
    assert get_rule(rule)("Cat", Row("cat")).status is Status.CORRECT
    assert get_rule(rule)("一只狗", Row("cat")).status is Status.WRONG


@pytest.mark.parametrize("rule", ["edit_similarity", "rouge_l", "bleu"])
def test_the_best_of_several_references_counts(rule: str) -> None:
    row = Row("", meta={"captions": ["a dog", "two cats"]})
    assert get_rule(rule, {"gold": "captions"})("two cats", row).score == 1.0


def test_a_threshold_makes_a_grade_right_or_wrong() -> None:
    assert get_rule("rouge_l", {"threshold": 0.7})("a cat on the mat", GOLD).status is Status.CORRECT
    assert get_rule("rouge_l", {"threshold": 0.8})("a cat on the mat", GOLD).score == 0.0


@pytest.mark.parametrize(
    ("text", "score"),
    [("1 2\n3", 1.0), ("1 2 \r\n3\n\n", 1.0), ("```text\n1 2\n3\n```", 1.0), ("1  2\n3", 1.0), ("1 2", 0.0)],
)
def test_an_output_is_compared_by_lines_and_blanks_are_forgiven(text: str, score: float) -> None:
    assert get_rule("program_output")(text, Row("1 2\n3")).score == score


def test_an_output_with_spacing_has_the_same_blanks_inside_of_lines() -> None:
    assert get_rule("program_output", {"spacing": True})("1  2", Row("1 2")).score == 0.0


def test_numbers_of_an_output_may_be_off_by_the_tolerance() -> None:
    rule = get_rule("program_output", {"tolerance": 0.01})
    assert rule("x 0.509", Row("x 0.5")).score == 1.0
    assert rule("x 0.511", Row("x 0.5")).score == 0.0
    assert rule("1010", Row("1000")).score == 1.0
    assert rule("nan", Row("0")).score == 0.0


def test_an_output_is_graded_by_the_share_of_lines_in_their_places() -> None:
    verdict = get_rule("program_output", {"by_line": True})("1\n2\n9\n4\n5", Row("1\n2\n3\n4"))
    assert verdict.score == pytest.approx(3 / 5)
    assert verdict.reason == "3 of 5 lines are right, the first that is not is line 3"
