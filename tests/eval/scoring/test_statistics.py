"""Intervals of accuracies, and that scoring loads no torch."""

from __future__ import annotations

import subprocess
import sys
from math import sqrt

import pytest

from eval.scoring.statistics import wilson_interval
from rewards import RuleError

Z = 1.959963984540054


@pytest.mark.parametrize(("correct", "total"), [(384, 3040), (1, 7), (5, 10), (999, 1000)])
def test_the_ends_of_the_interval_are_where_the_score_test_just_rejects(correct: int, total: int) -> None:
    for end in wilson_interval(correct, total):
        assert abs(correct / total - end) / sqrt(end * (1 - end) / total) == pytest.approx(Z, rel=1e-9)


def test_none_or_all_correct_end_exactly_at_zero_and_one() -> None:
    low, high = wilson_interval(0, 10)
    assert (low, high) == (0.0, pytest.approx(Z**2 / (10 + Z**2), rel=1e-12))
    low, high = wilson_interval(10, 10)
    assert (low, high) == (pytest.approx(10 / (10 + Z**2), rel=1e-12), 1.0)


def test_no_rows_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "total", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_numbers_are_refused(correct: int, total: int, confidence: float) -> None:
    with pytest.raises(RuleError, match="must lie between"):
        wilson_interval(correct, total, confidence)


def test_importing_the_statistics_does_not_load_torch() -> None:
    code = "import eval.scoring.statistics, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
