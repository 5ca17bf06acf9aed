"""Certain difference in floating point: never reported for equal trees, reported for different ones."""

from __future__ import annotations

import pytest

from rewards.math.clean import clean
from rewards.math.numeric import evaluate, sample_points, surely_differ
from rewards.math.parser import parse
from rewards.math.tree import symbols


def _differ(a: str, b: str) -> bool:
    left, right = parse(clean(a)), parse(clean(b))
    return surely_differ(left, right, symbols(left) | symbols(right))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("(x+1)^{200}(x-1)^{200}", "(x^2-1)^{200}"),  # underflows on one side
        (r"\sqrt{10^{20}+1}-10^{10}", "0"),  # cancels all digits
        (r"\frac{(1+10^{-9}x)^2-1}{10^{-9}}", "2x+10^{-9}x^2"),  # cancels half of them
        (r"\sin(10^{15}\pi)", "0"),
        (r"\tan(x)", r"\frac{\sin x}{\cos x}"),
        (r"e^{i\pi}", "-1"),
        (r"\sqrt[3]{-8}", "-2"),
        (r"x^{1/3}", r"\sqrt[3]{x}"),
    ],
)
def test_rounding_is_never_mistaken_for_a_difference(a: str, b: str) -> None:
    assert not _differ(a, b)


@pytest.mark.parametrize(
    ("a", "b"), [("x", "x+10^{-9}"), (r"\sqrt2", "1.4142135623"), ("|ab|", "a|b|"), ("ab", "ba^2")]
)
def test_a_small_difference_is_seen(a: str, b: str) -> None:
    assert _differ(a, b)


def test_the_error_bound_covers_the_true_error() -> None:
    value = evaluate(parse(r"(10^8+\frac13)^2-10^{16}"), {})
    exact = 2 * 10**8 / 3 + 1 / 9
    assert value is not None
    assert abs(value.z - exact) <= value.error < 2000


def test_points_are_the_same_each_time_and_each_name_is_negative_somewhere() -> None:
    names = frozenset("abc")
    assert sample_points(names) == sample_points(names)
    assert all(any(point[name].real < 0 for point in sample_points(names)) for name in names)
