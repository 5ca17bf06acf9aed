"""Equality by values to many digits: identities, hidden divisions by zero, near misses."""

from __future__ import annotations

import pytest

from rewards import equivalent
from rewards.math import precise
from rewards.math.parser import parse

HIDDEN_ZERO = "(x+1)^2-x^2-2x-1"
IDENTITIES = [
    (r"\tan 3x", r"\frac{3\tan x-\tan^3 x}{1-3\tan^2x}"),
    (r"\arcsin x+\arccos x", r"\frac{\pi}{2}"),
    (r"\sin 3x", r"3\sin x-4\sin^3 x"),
    (r"\log_2 8x", r"3+\log_2 x"),
    (r"\sqrt{x^2}", "|x|"),
    (r"\max(a,b)", r"\frac{a+b+|a-b|}{2}"),
    (r"\cosh^2 x-\sinh^2 x", "1"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
    (r"\sqrt{-4}", "2i"),
]
DIFFERENT = [
    (r"\sqrt{x^2}", "x"),
    (r"\arctan(\tan x)", "x"),
    (r"\sin 3x", r"3\sin x-3\sin^3 x"),
    ("1+e^{-100}", "1"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt3"),
    (rf"4+\frac{{0}}{{{HIDDEN_ZERO}}}", "4"),
    (rf"\sin(\frac{{1}}{{{HIDDEN_ZERO}}})", "x"),
    (r"\tan\frac{\pi}{2}", "101.52"),
    ("0^0", "1"),
    (r"\frac{x}{0}", "x"),
]


@pytest.mark.parametrize(("a", "b"), IDENTITIES)
def test_an_identity_is_found_in_both_directions(a: str, b: str) -> None:
    assert equivalent(a, b)
    assert equivalent(b, a)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_expressions_that_differ_or_have_no_value_are_not_equal(a: str, b: str) -> None:
    assert not equivalent(a, b)
    assert not equivalent(b, a)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("x=5", rf"x=x\cdot 2^{{\frac{{1}}{{{HIDDEN_ZERO}}}}}", False),
        ("x=5", "x=x", False),
        ("x=x", "x=5", False),
        ("x=x+1", "x=x+2", False),
        ("a^2-b^2=(a+b)(a-b)", "a^2-b^2=(a-b)(b+a)", True),
        ("a^2-b^2=(a+b)(a-b)", "a=a", False),
        ("xy=2", r"y=\frac2x", True),
        ("2x+4y=6", "x+2y=3", True),
        ("x^2+y^2=4", "x^2+y^2=5", False),
    ],
)
def test_equations_are_equal_if_one_is_a_multiple_of_the_other(a: str, b: str, same: bool) -> None:
    assert equivalent(b, a) is same


def test_an_expression_that_is_defined_nowhere_equals_not_even_itself() -> None:
    nowhere = parse(rf"\frac{{1}}{{{HIDDEN_ZERO}}}")
    assert not precise.same_function(nowhere, nowhere)


def test_the_ratio_of_multiples_is_their_factor() -> None:
    assert precise.ratio(parse("2x+4y"), parse("x+2y")) == 2
    assert precise.ratio(parse("x"), parse("x^2")) == "varies"
    assert precise.ratio(parse("x-x"), parse("y-y")) == "zero"
