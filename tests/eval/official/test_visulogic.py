"""VisuLogic's rule."""

from __future__ import annotations

import pytest

from eval.official.visulogic import grade, pick_letter


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{A} … \boxed{B}", "B"),
        (r"\boxed{A or B}", None),
        (r"\boxed{E}", None),
        ("so it is B.", "B"),
        ("so it is (B).", "B"),
        ("B\nbecause", "B"),
        ("The answer is: B. It fits.", "B"),
        ("the correct answer is option c", "C"),
        ("Answer: B because", None),
        ("B", "B"),
        ("perhaps B", None),
        ("", None),
    ],
)
def test_the_box_precedes_the_edges_and_the_phrases(response: str, letter: str | None) -> None:
    assert pick_letter(response) == letter


def test_another_letter_is_wrong() -> None:
    assert [grade(rf"\boxed{{{letter}}}", "B").score for letter in "AB"] == [0, 1]
