"""Rules "edit_similarity", "rouge_l" and "bleu", with scores computed by hand."""

from __future__ import annotations

import math

import pytest

from rewards import Status, get_rule
from rewards.example import RewardExample as Example

GOLD = Example("The cat sat on the mat.")


def test_edit_similarity_is_the_share_of_characters_that_stay() -> None:
    # kitten → sitting: two replaced, one added, of seven.
    assert get_rule("edit_similarity")("kitten", Example("sitting")).score == pytest.approx(
        1 - 3 / 7, abs=1e-12
    )


def test_edit_similarity_ignores_case_by_default() -> None:
    assert get_rule("edit_similarity")("The Cat.", Example("cat")).score == 1.0
    assert get_rule("edit_similarity", {"normalise": False})("Cat", Example("cat")).score == pytest.approx(
        2 / 3
    )


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


def test_bleu_of_a_shorter_order_counts_single_words_only() -> None:
    expected = math.exp(1 - 6 / 5) * 4 / 5
    assert get_rule("bleu", {"order": 1})("a cat on the mat", GOLD).score == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("rule", ["edit_similarity", "rouge_l", "bleu"])
def test_the_gold_text_itself_is_right_and_another_script_wrong(rule: str) -> None:
    assert get_rule(rule)(GOLD.answer, GOLD).status is Status.CORRECT
    assert get_rule(rule)("Cat", Example("cat")).status is Status.CORRECT
    assert get_rule(rule)("一只狗", Example("cat")).status is Status.WRONG


@pytest.mark.parametrize("rule", ["edit_similarity", "rouge_l", "bleu"])
def test_the_best_of_several_references_counts(rule: str) -> None:
    row = Example("", meta={"captions": ["a dog", "two cats"]})
    assert get_rule(rule, {"gold": "captions"})("two cats", row).score == 1.0


def test_a_threshold_makes_a_score_0_or_1() -> None:
    assert get_rule("rouge_l", {"threshold": 0.7})("a cat on the mat", GOLD).status is Status.CORRECT
    assert get_rule("rouge_l", {"threshold": 0.8})("a cat on the mat", GOLD).score == 0.0


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        # Two right words: precisions 1, 1 and twice 0.1.
        ("red bus", "red bus", (0.1 * 0.1) ** 0.25),
        # "blue" for "red": 1/2, then no bigram of one, then two missing orders.
        ("blue bus", "red bus", (0.5 * 0.1 * 0.1 * 0.1) ** 0.25),
        ("a red bus stops here", "a red bus stops here", 1.0),
        ("nothing of it", "a red bus", 0.0),
        # One word for two: the brevity penalty is e^(1 − 2).
        ("red", "red bus", math.exp(-1) * (0.1**3) ** 0.25),
    ],
)
def test_bleu_of_fixed_orders_counts_a_tenth_for_those_that_are_missing(
    text: str, gold: str, score: float
) -> None:
    found = get_rule("bleu", {"orders": "fixed"})(text, Example(gold))
    assert found.score == pytest.approx(score, abs=1e-8)


def test_bleu_may_count_punctuation_marks_as_words() -> None:
    def score(gold: str, *, punctuation: bool) -> float | None:
        return get_rule("bleu", {"order": 1, "punctuation": punctuation})("red, bus.", Example(gold)).score

    assert score("red bus", punctuation=False) == 1.0
    # Four tokens, two of them right.
    assert score("red bus", punctuation=True) == 0.5
    assert score("Red, bus.", punctuation=True) == 1.0
