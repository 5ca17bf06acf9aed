"""DynaMath's rule."""

from __future__ import annotations

import pytest

from eval.official.dynamath import grade, short_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ('{"solution": "…", "short answer": "2.094"}', "2.094"),
        ('```json\n{"short answer": "B"}\n```', "B"),
        ('{"short answer": 2.094}', "2.094"),
        (r'{"solution": "\frac{1}{2}", "short answer": "0.5"}', "0.5"),
        ('{"short answer": "1"} no, {"short answer": "2"}', "2"),
        ("no JSON", None),
    ],
)
def test_the_short_answer_is_found_in_valid_and_broken_json(response: str, answer: str | None) -> None:
    assert short_answer(response) == answer


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "status"),
    [
        ("2.0945", "2.0944", "float", "correct"),
        ("2.096", "2.0944", "float", "wrong"),
        ("3 meters", "3", "float", "correct"),
        ("2π", "6.2832", "float", "correct"),
        ("about 3", "3", "float", "unparsable_answer"),
        ("nan", "3", "float", "unparsable_answer"),
        ("b", "B", "multiple choice", "correct"),
        ("B) it is", "B", "multiple choice", "correct"),
        ("A or B", "B", "multiple choice", "unparsable_answer"),
        ("C", "B", "multiple choice", "wrong"),
        ("may", "May", "text", "correct"),
        ("May and June", "May", "text", "wrong"),
        ("", "May", "text", "unparsable_answer"),
    ],
)
def test_answers_are_compared_by_their_type(answer: str, gold: str, kind: str, status: str) -> None:
    assert grade(f'{{"short answer": "{answer}"}}', gold, kind).status.value == status


def test_a_response_without_json_is_the_answer_if_it_has_its_type() -> None:
    assert grade("B", "B", "multiple choice").score == 1
    assert grade("The period is 2.0944, which I computed.", "2.0944", "float").status.value == "no_answer"
