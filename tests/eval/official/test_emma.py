"""EMMA's fast evaluation."""

from __future__ import annotations

import pytest

from eval.official.emma import extract, grade


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("b", "B"),
        ("B: 70 cm", "B"),
        ("B. 70 cm", "B"),
        ("12.5", "12.5"),
        (r"So \boxed{A}, no, \boxed{B}.", "B"),
        (r"\boxed{\text{copper}}", "copper"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("The correct answer is B. It fits", "b"),
        ("Answer: 7 m\nbecause", "7 m"),
        ("no idea", ""),
    ],
)
def test_answers_are_found_by_the_rules(response: str, answer: str) -> None:
    assert extract(response) == answer


@pytest.mark.parametrize(
    ("response", "gold", "options", "score"),
    [
        (r"\boxed{b}", "B", ["30", "70"], 1),
        (r"\boxed{70}", "B", ["30", "70"], 1),
        (r"\boxed{30}", "B", ["30", "70"], 0),
        (r"\boxed{A}", "B", ["30", "70"], 0),
        (r"\boxed{\frac{1}{3}}", "0.33", [], 1),
        (r"\boxed{0.34}", "0.33", [], 0),
        (r"\boxed{seven}", "7", [], 1),
        (r"\boxed{2(x+1)}", "2x+2", [], 1),
        # The only number of both is 2, which makes them no equal formulas.
        (r"\boxed{C: mg + m \omega^2 R}", r"\( mg - m r \omega^2 \)", [], 0),
        ("no idea", "7", [], 0),
    ],
)
def test_an_answer_is_the_letter_its_option_or_an_equal_value(
    response: str, gold: str, options: list[str], score: float
) -> None:
    assert grade(response, gold, options).score == score
