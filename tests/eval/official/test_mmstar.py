"""MMStar's rule."""

from __future__ import annotations

import pytest

from eval.official.mmstar import grade


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("B", "correct"),
        ("b. square", "correct"),
        ("(B) square", "correct"),
        ("Option B", "correct"),
        ("The answer is B", "correct"),
        # The rule reads the first letter of any word.
        ("Blue is the colour", "correct"),
        ("A", "wrong"),
        ("The answer is C", "wrong"),
        ("It is B", "no_answer"),
        (r"\boxed{B}", "no_answer"),
        ("", "no_answer"),
    ],
)
def test_the_first_letter_decides(response: str, status: str) -> None:
    assert grade(response, "B").status.value == status
