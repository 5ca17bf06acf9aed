"""Shares of a run with their intervals."""

from __future__ import annotations

import pytest

from mm_cpgd.report.run_data import share


@pytest.mark.parametrize(
    ("value", "n", "low", "high"),
    [(0.5, 10, 0.23659, 0.76341), (0.0, 10, 0.0, 0.27754), (1.0, 500, 0.99238, 1.0)],
)
def test_the_interval_is_wilsons(value: float, n: int, low: float, high: float) -> None:
    found = share(value, n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


def test_the_interval_holds_the_shares_that_a_score_test_keeps() -> None:
    value, n = 0.3, 40
    found = share(value, n)
    assert found is not None
    for end in (found.low, found.high):
        assert end is not None
        assert abs(value - end) / (end * (1 - end) / n) ** 0.5 == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_interval_of_none_and_of_all_holds_the_share_itself(value: float) -> None:
    # Rounding would put the bound a hair inside, and the error bar of the chart would be negative.
    for n in range(1, 700):
        found = share(value, n)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= value <= found.high
