"""Chains of equalities: the value they give, and chains that are false."""

from __future__ import annotations

import pytest

from rewards import equivalent
from rewards.math.comparison.chains import is_false
from rewards.math.parser import parse


@pytest.mark.parametrize(
    "text", ["2+2=5", "x=3=2", r"3\approx2", r"\frac{1}{0}=3", "2=3=3", "5<3", r"2\ne2", r"\sqrt2=1.5"]
)
def test_a_false_chain_is_found(text: str) -> None:
    assert is_false(parse(text))


@pytest.mark.parametrize(
    "text", ["2+2=4", "x=5=5", r"\sqrt2\approx1.414", r"\frac13=0.33", "x=y", r"3<\pi", r"2\ne3", "x=2x+1"]
)
def test_a_chain_that_may_be_true_is_not_called_false(text: str) -> None:
    assert not is_false(parse(text))


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("m+n = 256+37 = 293", "293"),
        (r"\angle APC=74^\circ", r"74^\circ"),
        (r"\sqrt2\approx 1.414", r"\sqrt2"),
        (r"\frac{\sqrt3}{3}", r"\frac{\sqrt3}{3}\approx 0.577"),
        ("0.577", r"\frac{\sqrt3}{3}\approx 0.577"),
        ("2=x", "2"),
    ],
)
def test_a_chain_gives_its_exact_or_its_rounded_value(answer: str, gold: str) -> None:
    assert equivalent(answer, gold)


def test_an_equation_to_be_solved_gives_no_value() -> None:
    assert not equivalent("x+2=5", "5")
