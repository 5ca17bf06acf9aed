"""PhyX's rules."""

from __future__ import annotations

import pytest

from eval.official.phyx import grade_choice, grade_open


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("The answer is C.", "correct"),
        ("Option: C", "correct"),
        ("C: 3 m/s", "correct"),
        ("so **C**", "correct"),
        ("C", "correct"),
        ("The answer is B.", "wrong"),
        ("B: no, C: yes", "correct"),
        ("D", "wrong"),
        ("3 m/s", "no_answer"),
        # The rule takes the first capital letter from A to D after the word, in whatever word.
        ("The correct law is Ampère's, hence D", "wrong"),
    ],
)
def test_a_letter_is_found_after_a_word_or_before_a_colon(response: str, status: str) -> None:
    assert grade_choice(response, "C").status.value == status


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (r"\boxed{12 m}", "correct"),
        ("It is 12 m in length", "correct"),
        ("Final answer: 12 m", "correct"),
        (r"\boxed{12.0 m}", "wrong"),
        ("far", "no_answer"),
    ],
)
def test_an_open_answer_is_the_gold_text(response: str, status: str) -> None:
    assert grade_open(response, "12 m").status.value == status


def test_pi_and_large_fractions_are_mapped() -> None:
    assert grade_open(r"\boxed{\dfrac{\pi}{2}}", r"\frac{3.14}{2}").score == 1
