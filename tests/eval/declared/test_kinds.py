"""Kinds of answers: what they read, and that every kind handles an answer of any form."""

from __future__ import annotations

import pytest

from data import Example
from eval.benchmark import Response
from eval.declared.kinds import KINDS, golds, score
from rewards import Status

EXAMPLE = Example("1", "?", "B", choices=("cat", "dog"), meta={"answer": "{'x': 'B'}", "metric_info": "{}"})
HOSTILE = [
    "",
    " ",
    "\x00",
    "[" * 50_000,
    "{" * 50_000,
    "9" * 50_000,
    "-" * 50_000,
    "\\boxed{" * 5_000,
    "A" * 100_000,
    "answer is " * 20_000,
    "Answer: [" + "1," * 30_000,
    "<answer>" * 10_000,
    "𝒜 ５ ½ ٣",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_response_breaks_or_stalls_a_kind(kind: str, text: str) -> None:
    verdict = score(kind, {}, EXAMPLE, Response("1", text))
    assert verdict.score is None or 0 <= verdict.score < 1


@pytest.mark.parametrize("kind", sorted(name for name, one in KINDS.items() if one.reads == "response"))
def test_thinking_is_no_part_of_a_response(kind: str) -> None:
    plain, thought = (Response("1", text) for text in ("A", "<think>B (B) \\boxed{B} Answer: B</think>A"))
    assert score(kind, {}, EXAMPLE, plain) == score(kind, {}, EXAMPLE, thought)


@pytest.mark.parametrize("kind", ["letter", "mmmu", "mmbench"])
def test_a_stored_extraction_replaces_the_response(kind: str) -> None:
    assert score(kind, {}, EXAMPLE, Response("1", "A", extraction="B")).score == 1


def test_several_gold_answers_are_known_by_the_row() -> None:
    assert golds(EXAMPLE) == ("B",)
    assert golds(Example("1", "?", "a", meta={"_golds": ["a", "b"]})) == ("a", "b")


def test_an_empty_response_has_no_answer() -> None:
    assert score("number", {}, EXAMPLE, Response("1", "")).status is Status.NO_ANSWER
