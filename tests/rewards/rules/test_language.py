"""Rule "language"."""

from __future__ import annotations

import pytest

from rewards import Status, get_rule
from rewards.example import RewardExample as Example

NONE = Example("")


def test_the_share_of_words_in_the_expected_script_is_the_score() -> None:
    # Three Chinese characters and one Latin word.
    verdict = get_rule("language", {"expected": "chinese"})("答案是 seven", NONE)
    assert (verdict.score, verdict.reason) == (0.75, "75.0% of 4 words are Chinese")


@pytest.mark.parametrize(
    "text", ["三角形 ABC 的边 x", "面积 $\\frac{area}{two}$ 是", "`print` 代码", "<think>思</think>"]
)
def test_formulas_code_tags_and_names_of_figures_do_not_count(text: str) -> None:
    assert get_rule("language", {"expected": "chinese"})(text, NONE).score == 1.0


def test_the_language_of_the_question_may_be_required() -> None:
    rule = get_rule("language")
    assert rule("Сколько", Example("", question="Сколько их?")).score == 1.0
    assert rule("How many", Example("", question="Сколько их?")).score == 0.0
    assert rule("猫がいる", Example("", question="猫はどこですか")).score == 1.0
    assert rule("How many", Example("", question="2 + 2?")).status is Status.UNPARSABLE_GOLD
