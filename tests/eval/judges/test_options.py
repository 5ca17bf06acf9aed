"""MM-EUREKA's scoring of MathVista and MathVision."""

from __future__ import annotations

import pytest

from data import Example
from eval.benchmark import Response
from eval.benchmarks import find_benchmark
from eval.judges.options import equal_by_type, equal_by_value, infer_option
from rewards import Status
from tests.fakes.judging import Replies

COLOURS = ("red", "blue", "green")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"),
        ("So the option is B: blue.", "B"),
        ("A box is blue.", "A"),
        ("I would say blue.", "B"),
        ("Red", "A"),
        ("B or C", None),
        ("red or blue", None),
        ("It is yellow.", None),
        ("I can't process this file.", "Z"),
        ("My answer: Z", "Z"),
        ("B, not Z", "B"),
    ],
)
def test_an_option_is_inferred_from_its_letter_or_its_text(text: str, letter: str | None) -> None:
    assert infer_option(text, COLOURS) == letter


def vista(**meta: str) -> Example:
    columns = {"answer_type": "text", "precision": None, "unit": None, **meta}
    choices = COLOURS if columns["answer_type"] == "text" else ()
    return Example("1", "Which colour?", columns.pop("gold", "blue"), choices=choices, meta=columns)


@pytest.mark.parametrize(
    ("kind", "gold", "text", "equal"),
    [
        ("integer", "12", "12", True),
        ("integer", "12", "12.0", False),
        ("float", "1.2", "1.20", True),
        ("float", "1.2", "1.21", False),
        ("list", "[1, 2]", "[1, 2]", False),
    ],
)
def test_mathvistas_values_are_compared_by_type(kind: str, gold: str, text: str, equal: bool) -> None:
    assert equal_by_type(vista(answer_type=kind, gold=gold), text) is equal


@pytest.mark.parametrize(
    ("gold", "text", "equal"),
    [("12", "12", True), ("0.5", r"\frac{1}{2}", True), ("1/3", "0.3333", False), ("X+1", "x+1", True)],
)
def test_mathvisions_values_are_compared_as_text_or_number(gold: str, text: str, equal: bool) -> None:
    assert equal_by_value(Example("1", "?", gold), text) is equal


def test_an_inferred_option_needs_no_request() -> None:
    judge = find_benchmark("mathvista").judges["mm-eureka"]
    assert judge(vista(), Response("1", "The answer is B"), Replies()).score == 1
    assert judge(vista(), Response("1", "The answer is C"), Replies()).score == 0


def test_what_cannot_be_inferred_is_extracted_from_the_answer_tag() -> None:
    ask = Replies("B")
    judge = find_benchmark("mathvista").judges["mm-eureka"]
    text = "<think>A or C?</think><answer>the second, of A, B, C</answer>"
    assert judge(vista(), Response("1", text), ask).status is Status.CORRECT
    assert "Response: the second, of A, B, C</answer>" in ask.prompts[0]
    assert "A or C?" not in ask.prompts[0]


def test_mathvision_extracts_from_the_whole_response() -> None:
    ask = Replies("1/2")
    judge = find_benchmark("mathvision").judges["mm-eureka"]
    verdict = judge(Example("1", "How much?", "0.5"), Response("1", "<answer>Half of it.</answer>"), ask)
    assert (verdict.score, verdict.extracted) == (1.0, "1/2")
    assert "Response: <answer>Half of it.</answer>" in ask.prompts[0]


def test_an_empty_response_is_wrong_without_a_request() -> None:
    judge = find_benchmark("mathvision").judges["mm-eureka"]
    assert judge(Example("1", "How much?", "0.5"), Response("1", ""), Replies()).status is Status.NO_ANSWER
