"""Which part of a completion a rule reads, and which part of the example it is compared with."""

from __future__ import annotations

import pytest

from rewards import RuleError, Status, get_rule
from rewards.example import RewardRow as Row
from rewards.rules.common import section, unfenced

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
def test_a_part_of_the_completion_is_named(read: str, found: str | None) -> None:
    assert section(STAGES, read) == found


def test_without_an_answer_tag_the_text_is_all_after_the_thinking() -> None:
    assert section("<think>2</think>a cat\non a mat", "text") == "a cat\non a mat"


def test_a_tag_inside_of_the_thinking_does_not_count() -> None:
    verdict = get_rule("rouge_l", {"read": "caption"})("<think><caption>cat</caption></think>", Row("cat"))
    assert (verdict.score, verdict.status) == (0.0, Status.NO_ANSWER)
    assert "no <caption>…</caption> was found" in verdict.reason


def test_the_last_complete_tag_counts() -> None:
    assert section("<caption>a</caption><caption>b</caption><caption>c", "caption") == "b"


def test_thinking_that_the_prompt_opened_or_nobody_closed_is_thinking() -> None:
    assert section("so</think>4", "think") == "so"
    assert section("<think>so", "think") == "so"
    assert section("so", "think") is None


def test_a_code_fence_is_taken_off_only_if_it_is_all() -> None:
    assert unfenced("```json\n1\n```") == "1\n"
    assert unfenced("see ```\n1\n```") == "see ```\n1\n```"


def test_the_gold_side_may_be_a_column_of_meta() -> None:
    rule = get_rule("exact", {"gold": "name"})
    assert rule("cat", Row("dog", meta={"name": "cat"})).score == 1.0


def test_of_several_gold_texts_each_is_right() -> None:
    rule = get_rule("exact", {"gold": "names"})
    row = Row("", meta={"names": ["cat", "tabby"]})
    assert rule("a tabby", row).score == 1.0
    assert rule("a dog", row).reason == "'dog' is not 'cat' nor 1 others"


def test_a_missing_column_takes_the_completion_out_and_says_what_there_is() -> None:
    verdict = get_rule("exact", {"gold": "name"})("cat", Row("cat", meta={"level": 3}))
    assert (verdict.score, verdict.status) == (None, Status.UNPARSABLE_GOLD)
    assert "no 'name'; its meta holds level" in verdict.reason


def test_an_empty_gold_answer_cannot_be_scored() -> None:
    assert get_rule("counting")("3", Row("")).status is Status.UNPARSABLE_GOLD


def test_a_text_that_is_too_long_is_unreadable() -> None:
    verdict = get_rule("rouge_l")("cat " * 6000, Row("cat"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)
    assert "24,000 characters, at most 20,000" in verdict.reason


@pytest.mark.parametrize("name", ["<caption>", "a b", ""])
def test_what_is_no_tag_cannot_be_read(name: str) -> None:
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


def test_the_format_takes_other_tags() -> None:
    rule = get_rule("format", {"tags": ["caption", "answer"]})
    assert rule("<caption>a cat</caption>\n<answer>4</answer>", Row("")).score == 1.0
    assert rule("<answer>4</answer><caption>a cat</caption>", Row("")).score == 0.0
    assert rule("<caption>a cat</caption><answer> </answer>", Row("")).reason == "<answer> is empty"
