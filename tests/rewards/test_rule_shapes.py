"""The rules that need no gold answer: "json_schema", "length", "repetition", "language"."""

from __future__ import annotations

import pytest

from rewards import RuleError, Status, get_rule
from rewards.example import RewardRow as Row

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
NONE = Row("")


@pytest.mark.parametrize("text", ['{"n": 1}', '```json\n{"n": 1}\n```', '<answer>{"n": 1}</answer>'])
def test_json_that_the_schema_allows_is_right(text: str) -> None:
    assert get_rule("json_schema", {"schema": SCHEMA})(text, NONE).score == 1.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"n": "1"}', "$.n: '1' is not of type 'integer'"),
        ("{}", "$: 'n' is a required property"),
        ("[]", "$:"),
    ],
)
def test_json_of_another_shape_is_wrong_and_says_where(text: str, why: str) -> None:
    verdict = get_rule("json_schema", {"schema": SCHEMA})(text, NONE)
    assert verdict.status is Status.WRONG
    assert verdict.reason.startswith(why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{n: 1}", "no JSON"),
        ('{"n": 1, "n": 2}', "stands twice"),
        ('{"n": NaN}', "NaN is no JSON"),
        ('{"n": 1e999}', "too large"),
        ('{"n": ' + "9" * 400 + "}", "too large"),
        ("[" * 33 + "]" * 33, "nested 33 deep"),
        ("[" * 19_000, "nested 19000 deep"),
        ('"' + "a" * 20_000 + '"', "20,002 characters"),
    ],
)
def test_what_is_no_json_or_too_large_is_unreadable(text: str, why: str) -> None:
    verdict = get_rule("json_schema", {"schema": {}})(text, NONE)
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)
    assert why in verdict.reason


def test_brackets_in_a_string_do_not_nest() -> None:
    assert get_rule("json_schema", {"schema": {}})('"' + "[" * 50 + '\\""', NONE).score == 1.0


@pytest.mark.parametrize(("size", "score"), [(0, 0.4), (3, 1), (10, 1), (11, 0.8), (15, 0), (40, 0)])
def test_a_length_outside_of_the_band_falls_evenly(size: int, score: float) -> None:
    rule = get_rule("length", {"longest": 10, "shortest": 3, "slack": 5})
    assert rule("word " * size, NONE).score == pytest.approx(score, abs=1e-12)


def test_without_slack_the_band_has_sharp_ends() -> None:
    rule = get_rule("length", {"longest": 3, "unit": "characters"})
    assert [rule("x" * n, NONE).score for n in (3, 4)] == [1.0, 0.0]


def test_only_the_thinking_may_be_measured() -> None:
    rule = get_rule("length", {"longest": 2, "read": "think"})
    assert rule("<think>one two</think> three four five", NONE).score == 1.0


def test_a_band_that_is_upside_down_is_a_mistake() -> None:
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


def test_the_share_of_words_in_the_expected_script_is_the_grade() -> None:
    # Three Chinese signs and one Latin word.
    verdict = get_rule("language", {"expected": "chinese"})("答案是 seven", NONE)
    assert (verdict.score, verdict.reason) == (0.75, "75.0% of 4 words are Chinese")


@pytest.mark.parametrize(
    "text", ["三角形 ABC 的边 x", "面积 $\\frac{area}{two}$ 是", "`print` 代码", "<think>思</think>"]
)
def test_formulas_code_tags_and_names_of_figures_are_no_language(text: str) -> None:
    assert get_rule("language", {"expected": "chinese"})(text, NONE).score == 1.0


def test_the_language_of_the_question_may_be_asked_for() -> None:
    rule = get_rule("language")
    assert rule("Сколько", Row("", question="Сколько их?")).score == 1.0
    assert rule("How many", Row("", question="Сколько их?")).score == 0.0
    assert rule("猫がいる", Row("", question="猫はどこですか")).score == 1.0
    assert rule("How many", Row("", question="2 + 2?")).status is Status.UNPARSABLE_GOLD
