"""Sections of completions, gold values and ranges of options, which rules have in common."""

from __future__ import annotations

import pytest

from rewards import RuleError, Status, get_rule
from rewards.example import RewardExample as Example
from rewards.rules.common import section, strip_code_fence, words

STAGES = "<think>a <caption>no</caption></think><caption>a cat</caption> so <answer>\\boxed{4}</answer>"


@pytest.mark.parametrize(
    ("read", "found"),
    [
        ("answer", "4"),
        ("text", "\\boxed{4}"),
        ("think", "a <caption>no</caption>"),
        ("everything", STAGES),
        ("caption", "a cat"),
        ("bbox", None),
    ],
)
def test_a_section_of_the_completion_is_named(read: str, found: str | None) -> None:
    assert section(STAGES, read) == found


def test_without_an_answer_tag_the_text_is_all_after_the_thinking() -> None:
    assert section("<think>2</think>a cat\non a mat", "text") == "a cat\non a mat"


def test_a_tag_inside_of_the_thinking_does_not_count() -> None:
    verdict = get_rule("rouge_l", {"read": "caption"})(
        "<think><caption>cat</caption></think>", Example("cat")
    )
    assert (verdict.score, verdict.status) == (0.0, Status.NO_ANSWER)
    assert "no <caption>…</caption> was found" in verdict.reason


def test_the_last_complete_tag_counts() -> None:
    assert section("<caption>a</caption><caption>b</caption><caption>c", "caption") == "b"


def test_thinking_without_an_opening_or_closing_tag_is_read() -> None:
    assert section("so</think>4", "think") == "so"
    assert section("<think>so", "think") == "so"
    assert section("so", "think") is None


def test_a_code_fence_is_stripped_only_around_the_whole_text() -> None:
    assert strip_code_fence("```json\n1\n```") == "1\n"
    assert strip_code_fence("see ```\n1\n```") == "see ```\n1\n```"


def test_the_gold_value_may_be_a_column_of_meta() -> None:
    rule = get_rule("exact", {"gold": "name"})
    assert rule("cat", Example("dog", meta={"name": "cat"})).score == 1.0


def test_of_several_gold_texts_each_is_right() -> None:
    rule = get_rule("exact", {"gold": "names"})
    row = Example("", meta={"names": ["cat", "tabby"]})
    assert rule("a tabby", row).score == 1.0
    assert rule("a dog", row).reason == "'dog' is not 'cat' nor 1 others"


def test_a_missing_column_excludes_the_completion_and_lists_the_columns() -> None:
    verdict = get_rule("exact", {"gold": "name"})("cat", Example("cat", meta={"level": 3}))
    assert (verdict.score, verdict.status) == (None, Status.UNPARSABLE_GOLD)
    assert "no 'name'; its meta holds level" in verdict.reason


def test_an_empty_gold_answer_cannot_be_scored() -> None:
    assert get_rule("counting")("3", Example("")).status is Status.UNPARSABLE_GOLD


def test_a_text_that_is_too_long_is_unreadable() -> None:
    verdict = get_rule("rouge_l")("cat " * 6000, Example("cat"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)
    assert "24,000 characters, at most 20,000" in verdict.reason


@pytest.mark.parametrize("name", ["<caption>", "a b", ""])
def test_an_invalid_tag_name_is_refused(name: str) -> None:
    with pytest.raises(RuleError, match=r"'read' of rule 'exact' .* a tag is named without brackets"):
        get_rule("exact", {"read": name})


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("numeric", {"relative": -0.1}),
        ("numeric", {"absolute": float("nan")}),
        ("boxes", {"threshold": 1.5}),
        ("boxes", {"coordinates": "pixels"}),
        ("counting", {"near": -1}),
        ("bleu", {"order": 0}),
        ("length", {"longest": 0}),
        ("repetition", {"allowed": 2}),
        ("language", {"expected": "klingon"}),
        ("format", {"tags": []}),
        ("format", {"tags": ["<think>"]}),
        ("json_schema", {"schema": {"type": "nonsense"}}),
        ("json_schema", {"schema": "object"}),
    ],
)
def test_an_option_out_of_its_range_is_refused_before_training(rule: str, options: dict[str, object]) -> None:
    needed = {"length": {"longest": 5}}.get(rule, {})
    with pytest.raises(RuleError, match=f"option '{next(iter(options))}' of rule '{rule}'"):
        get_rule(rule, {**needed, **options})


def test_words_are_split_at_punctuation_and_chinese_at_each_character() -> None:
    assert words("The cat’s 3.5 m, 两只Cats") == ["the", "cat’s", "3.5", "m", "两", "只", "cats"]
