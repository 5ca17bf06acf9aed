"""Rules "length" and "repetition"."""

from __future__ import annotations

import pytest

from rewards import RuleError, get_rule
from rewards.example import RewardExample as Example

NONE = Example("")


@pytest.mark.parametrize(("size", "score"), [(0, 0.4), (3, 1), (10, 1), (11, 0.8), (15, 0), (40, 0)])
def test_a_length_outside_the_range_decreases_linearly(size: int, score: float) -> None:
    rule = get_rule("length", {"longest": 10, "shortest": 3, "slack": 5})
    assert rule("word " * size, NONE).score == pytest.approx(score, abs=1e-12)


def test_without_slack_the_range_has_sharp_ends() -> None:
    rule = get_rule("length", {"longest": 3, "unit": "characters"})
    assert [rule("x" * n, NONE).score for n in (3, 4)] == [1.0, 0.0]


def test_only_the_thinking_may_be_measured() -> None:
    rule = get_rule("length", {"longest": 2, "read": "think"})
    assert rule("<think>one two</think> three four five", NONE).score == 1.0


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(RuleError, match="shortest 5 is above longest 3"):
        get_rule("length", {"longest": 3, "shortest": 5})("x", NONE)


def test_repetition_counts_n_grams_that_have_occurred_before() -> None:
    # a b c a b c: pairs ab bc ca ab bc, two of five again.
    verdict = get_rule("repetition", {"n": 2})("a b c a b c", NONE)
    assert verdict.score == pytest.approx(3 / 5, abs=1e-12)
    assert verdict.reason == "40.0% of the 2-grams are repeated"


def test_an_allowed_share_of_repetition_costs_nothing() -> None:
    assert get_rule("repetition", {"n": 2, "allowed": 0.4})("a b c a b c", NONE).score == pytest.approx(1.0)
    # 0.4 is 0.2 over 0.2, of 0.8 that there are.
    assert get_rule("repetition", {"n": 2, "allowed": 0.2})("a b c a b c", NONE).score == pytest.approx(0.75)


def test_a_short_text_repeats_nothing() -> None:
    assert get_rule("repetition")("a a a", NONE).score == 1.0
    assert get_rule("repetition")("", NONE).score == 1.0
