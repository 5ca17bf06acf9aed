"""Rules "format" and "json_schema"."""

from __future__ import annotations

import pytest

from rewards import Status, get_rule
from rewards.example import RewardExample as Example

GOOD = "<think>2+2</think>\n<answer>4</answer>\n"
BAD_FORMATS = [
    "4",
    "<answer>4</answer>",
    "<answer>4</answer><think>2+2</think>",
    "<think>2+2</think><think>again</think><answer>4</answer>",
    "<think>2+2</think><answer>4</answer><answer>4</answer>",
    "<think>2+2</think> so <answer>4</answer>",
    "well <think>2+2</think><answer>4</answer>",
    "<think>2+2</think><answer>4</answer> done",
    "<think> </think><answer>4</answer>",
    "<think>2+2</think><answer></answer>",
    "<think>2+2<answer>4</answer></think>",
    "<think>2+2</think><answer>4",
    "<answer>",
    "",
]


def test_the_format_holds_with_both_tags_filled_in_order() -> None:
    assert get_rule("format")(GOOD, Example("4")).score == 1.0


@pytest.mark.parametrize("completion", BAD_FORMATS)
def test_any_other_format_scores_zero_with_a_reason(completion: str) -> None:
    verdict = get_rule("format")(completion, Example("4"))
    assert verdict.score == 0.0
    assert verdict.reason


def test_the_format_takes_other_tags() -> None:
    rule = get_rule("format", {"tags": ["caption", "answer"]})
    assert rule("<caption>a cat</caption>\n<answer>4</answer>", Example("")).score == 1.0
    assert rule("<answer>4</answer><caption>a cat</caption>", Example("")).score == 0.0
    assert rule("<caption>a cat</caption><answer> </answer>", Example("")).reason == "<answer> is empty"


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
NONE = Example("")


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
        ("{n: 1}", "not JSON"),
        ('{"n": 1, "n": 2}', "occurs twice"),
        ('{"n": NaN}', "NaN is not JSON"),
        ('{"n": 1e999}', "too large"),
        ('{"n": ' + "9" * 400 + "}", "too large"),
        ("[" * 33 + "]" * 33, "nested 33 deep"),
        ("[" * 19_000, "nested 19000 deep"),
        ('"' + "a" * 20_000 + '"', "20,002 characters"),
    ],
)
def test_text_that_is_not_json_or_too_large_is_unreadable(text: str, why: str) -> None:
    verdict = get_rule("json_schema", {"schema": {}})(text, NONE)
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)
    assert why in verdict.reason


def test_brackets_in_a_string_do_not_nest() -> None:
    assert get_rule("json_schema", {"schema": {}})('"' + "[" * 50 + '\\""', NONE).score == 1.0
