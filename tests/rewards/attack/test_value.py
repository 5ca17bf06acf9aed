"""Values of formulas, by which the bench shows that a changed formula is another one."""

from __future__ import annotations

import math

import pytest

from rewards.attack.value import differ, identity, letters, value_at


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("2+3*4", 14), ("2^3", 8), (r"\frac{3}{4}", 0.75), (r"\frac94", 2.25), (r"\sqrt{16}", 4),
        ("-2^2", -4), (r"\sqrt[3]{27}", 3), (r"2\pi", 2 * math.pi), (r"\left(1+2\right)\cdot 3", 9),
        ("2(3)", 6), ("6/2", 3), ("2^{-1}", 0.5), (r"\sin(0)", 0), ("1-2-3", -4),
    ],
)  # fmt: skip
def test_a_formula_has_its_value(formula: str, value: float) -> None:
    assert value_at(formula, 1.0) == pytest.approx(value)


@pytest.mark.parametrize(
    "formula",
    ["", "2+", "1/0", "(1", r"\foo{2}", "a_1", "x!", "2^{2^{99999}}", r"\sqrt{-1}", "(" * 90, "9" * 200],
)
def test_a_formula_that_is_not_known_has_no_value(formula: str) -> None:
    assert value_at(formula, 1.0) is None


def test_letters_of_commands_are_not_letters() -> None:
    assert letters(r"\frac{b}{2}+a") == ["a", "b"]


def test_equal_formulas_do_not_differ() -> None:
    assert not differ("(x+1)^2", "x^2+2x+1")
    assert not differ(r"\sin(\pi)", r"\sin(2\pi)")
    assert differ("x^2", "x^3")


def test_an_identity_is_one() -> None:
    assert identity("a^2-b^2", "(a+b)(a-b)")
    assert not identity("x", "3")
