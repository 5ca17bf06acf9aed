"""The file's own questions against the data's, and doubtful texts."""

from __future__ import annotations

import pytest

from data import Example
from eval.benchmark import Failure, Response
from eval.predictions.checks import CELL, answer_warnings, missing_warnings, question_warnings, text_warnings
from eval.predictions.records import Record
from tests.fakes.scoring import sums

QUESTION = "How many corners has the figure?\n<image1>"


def record(text: str = "4", question: str | None = None, **more: object) -> Record:
    return Record("a:1", Response("a", text), question=question, **more)  # type: ignore[arg-type]


def warned(question: str, data: str = QUESTION, **meta: str) -> list[str]:
    return question_warnings([record(question=question)], [Example("a", data, "4", meta=meta)], sums())


@pytest.mark.parametrize(
    "question",
    [
        QUESTION,
        "how many corners  has the figure",
        "<|vision_start|><image>\nHint: give a number.\nQuestion: How many corners has the figure?\nAnswer:",
        "How many corners has the figure? Choices: (A) 3 (B) 4",
        "How many corners has the figure?? <image 1>",
        "How many corner's has this figure?",
        "?",
    ],
)
def test_templates_marks_and_small_differences_are_the_same_question(question: str) -> None:
    assert warned(question) == []


def test_another_question_is_counted_and_the_first_is_shown() -> None:
    (warning,) = warned("What colour is the car?")
    assert warning.startswith("in 1 of 1 responses the file's own question is not the data's, first id 'a': ")
    assert "'What colour is the car?', in the data 'How many corners" in warning


def test_a_published_variant_of_the_question_is_the_same_question() -> None:
    variant = "Given the triangle, find x."
    assert warned(variant, "Find y as shown.", question_for_eval=variant) == []
    assert warned(variant, "Find y as shown.") != []


def test_a_prompt_that_contains_the_question_in_math_is_the_same_question() -> None:
    assert (
        warned("Solve: Find $\\frac{1}{2}$ of the angle ABC", "Find $\\frac{1}{2}$ of the angle $ABC$") == []
    )


def test_a_file_without_questions_and_other_ids_gives_no_warning() -> None:
    assert question_warnings([record()], [Example("a", QUESTION, "4")], sums()) == []
    assert question_warnings([record(question="What?!")], [Example("b", QUESTION, "4")], sums()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" ", "1 of 1 responses are empty texts and count as wrong; first id 'a'"),
        ("None", "are the text None or null"),
        ("x" * CELL, "have exactly 32,767 characters"),
    ],
)
def test_doubtful_texts_are_counted(text: str, says: str) -> None:
    (warning,) = text_warnings([record(text)], ".xlsx")
    assert says in warning


def test_a_long_text_of_a_format_without_a_limit_is_complete() -> None:
    assert text_warnings([record("x" * CELL)], ".jsonl") == []


def test_nulls_are_told_apart_from_failures() -> None:
    failed = Record("a:1", Response("a", "", failure=Failure("429")), missing=True)
    (silent,) = missing_warnings([failed, record("", missing=True)])
    assert "1 of 2 responses in the file are null or NaN, and missing; first id 'a'" in silent


def gold_warned(
    answer: str | None,
    gold: str = "4",
    choices: tuple[str, ...] = (),
    meta: dict[str, object] | None = None,
) -> list[str]:
    example = Example("a", QUESTION, gold, choices=choices, meta=meta or {})
    return answer_warnings([record(answer=answer)], [example])


@pytest.mark.parametrize(
    ("answer", "gold", "choices", "meta"),
    [
        ("4", "4", (), {}),
        (" $4$ ", "4", (), {}),
        ("4.0", "4", (), {}),
        (r"\frac{1}{2}", "0.5", (), {}),
        ("B", "B", ("3", "4"), {}),
        ("4", "B", ("3", "4"), {}),
        ("b", "B", ("3", "4"), {}),
        ("1", "B", ("3", "4"), {"answer": 1}),
        ("two", "one", (), {"_golds": ("one", "two")}),
        (None, "4", (), {}),
        ("anything", " ", (), {}),
    ],
)
def test_a_gold_answer_in_any_published_form_is_the_datas(
    answer: str | None, gold: str, choices: tuple[str, ...], meta: dict[str, object]
) -> None:
    assert gold_warned(answer, gold, choices, meta) == []


def test_another_gold_answer_is_counted_and_the_first_is_shown() -> None:
    (warning,) = gold_warned("5")
    assert warning.startswith("in 1 of 1 responses the file's own gold answer is not the data's")
    assert "first id 'a': '5', in the data '4'" in warning
    assert gold_warned("A", "B", ("3", "4"), {"level": "A"})
    assert gold_warned("None")
