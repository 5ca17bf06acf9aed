"""Tests of one metric against its recent history, against values worked out by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from mm_cpgd.guard import watch
from mm_cpgd.guard.trend_tests import Above, Falls, History, Jumps, Rises, fall_of, trim
from tests.fakes.guard import rows_of


def test_a_fall_is_measured_in_deviations_of_the_sampling_noise() -> None:
    # 128 completions, 8 per prompt, ρ = ½: worth 128/4.5 = 28.4; the variance of a row's mean is 0.4²/28.4,
    # of a mean of two rows half of it, of the difference of two such means that of a row again.
    rows = rows_of(reward_mean=[1.0, 1.2, 1.2, 0.9, 0.7])
    fall = fall_of(History(rows, completions=8), "reward/mean", over=2)
    assert fall is not None
    assert fall.sigmas == pytest.approx(0.4 / math.sqrt(0.16 * 4.5 / 128))
    assert fall.share == pytest.approx(0.4 / 1.2)


def test_the_best_of_many_is_expected_to_be_high_by_chance() -> None:
    # 12 rows before the last two make 11 windows of 2, worth 5.5 independent ones.
    rows = rows_of(reward_mean=[1.2] * 12 + [0.9, 0.7])
    fall = fall_of(History(rows, completions=8), "reward/mean", over=2)
    assert fall is not None
    assert fall.sigmas == pytest.approx(0.4 / math.sqrt(0.16 * 4.5 / 128) - math.sqrt(math.log(5.5)))


def test_a_nearly_constant_metric_does_not_alarm_on_a_small_change() -> None:
    # Its median absolute deviation is 0; the floor of 0.15 makes 4 deviations a factor of e^0.6.
    gradient = Jumps("optimizer/grad_norm", deviations=4.0, factor=1.5)
    small = gradient(History(rows_of(optimizer_grad_norm=[0.5] * 8 + [0.8, 0.8])))
    large = gradient(History(rows_of(optimizer_grad_norm=[0.5] * 8 + [2.0, 2.0])))
    assert small is not None
    assert small.strength == pytest.approx(math.log(1.6) / 0.6)
    assert large is not None
    assert large.strength == pytest.approx(math.log(4) / 0.6)


def test_a_steady_climb_is_not_a_jump() -> None:
    climb = [1.1**i for i in range(30)]
    found = Jumps("optimizer/grad_norm", 4.0, 2.0)(History(rows_of(optimizer_grad_norm=climb)))
    assert found is not None
    assert found.strength < 1


def test_a_gradient_of_zero_has_no_finding() -> None:
    found = Jumps("optimizer/grad_norm", 4.0, 4.0, up=False)
    assert found(History(rows_of(optimizer_grad_norm=[0.5] * 8 + [0.0, 0.0]))) is None


@pytest.mark.parametrize(
    "test",
    [
        Above("a/b", 1, 1),
        Falls("a/b", 4, 0.2),
        Rises("a/b", 2),
        Jumps("a/b", 4, 2),
    ],
)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.5"])
def test_values_that_are_not_finite_numbers_have_no_finding(test: Any, value: Any) -> None:
    assert test(History(rows_of(a_b=[1.0] * 10 + [value]))) is None


def test_trimmed_rows_raise_the_same_alarms() -> None:
    rng = random.Random(1)
    reward = [1.2 + rng.uniform(-0.4, 0.4) for _ in range(60)]
    held_out = [0.8 if i % 7 == 0 else None for i in range(59)] + [0.4]
    rows = rows_of(reward_mean=reward, eval_accuracy=held_out, eval_n=[100.0] * 60)
    assert len(trim(rows)) < 30
    assert watch(trim(rows)) == watch(rows) != []
