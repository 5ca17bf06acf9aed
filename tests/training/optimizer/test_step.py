"""Optimizer steps: which are skipped, and which weights they change."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from mm_cpgd.config.schema import TrainingConfig
from mm_cpgd.training.optimizer import OptimizerStep, build_schedule
from mm_cpgd.training.optimizer.compact import CompactAdamW


def step_of(weights: torch.Tensor, rate: float) -> tuple[OptimizerStep, nn.Parameter]:
    """An AdamW step on these weights; its first steps have the size of the rate."""
    parameter = nn.Parameter(weights)
    optimizer = torch.optim.AdamW([parameter], lr=rate, weight_decay=0.0)
    schedule = build_schedule(optimizer, TrainingConfig(learning_rate=rate), 10)
    return OptimizerStep(Accelerator(cpu=True), [parameter], optimizer, schedule, 1.0, 3), parameter


def take(
    step: OptimizerStep, parameter: nn.Parameter, gradient: torch.Tensor | None = None
) -> dict[str, float]:
    parameter.grad = torch.ones_like(parameter) if gradient is None else gradient.to(parameter.dtype)
    return step(0.0)


@pytest.mark.parametrize(
    ("dtype", "rate", "expected"),
    [
        # Below 2^-n bfloat16 numbers are 2^-(n+8) apart, so a smaller step than half of it is lost, and half
        # of it is rounded back to 2^-n: 2^-20 changes the weights from n = 12 on.
        (torch.bfloat16, 2.0**-20, 9 / 20),
        (torch.float32, 2.0**-20, 20 / 20),
        (torch.bfloat16, 2.0**-8, 20 / 20),
        (torch.bfloat16, 2.0**-32, 0.0),
    ],
)
def test_the_share_of_weights_that_a_step_changes(dtype: torch.dtype, rate: float, expected: float) -> None:
    step, parameter = step_of(torch.tensor([2.0**-n for n in range(1, 21)]).to(dtype), rate)
    assert take(step, parameter)["optimizer/weights_changed"] == pytest.approx(expected)


def test_weights_without_a_gradient_do_not_count() -> None:
    step, parameter = step_of(torch.ones(8), 0.1)
    gradient = torch.tensor([0.0, 1.0] * 4)
    assert take(step, parameter, gradient)["optimizer/weights_changed"] == 1.0


def test_a_large_parameter_is_sampled_evenly() -> None:
    step, parameter = step_of(torch.ones(10, 100_000), 1e-9)
    with torch.no_grad():
        parameter[5:] = 0.0  # a step of any size changes a weight of 0
    assert take(step, parameter)["optimizer/weights_changed"] == pytest.approx(0.5, abs=0.001)


def test_a_skipped_step_changes_nothing() -> None:
    step, parameter = step_of(torch.ones(4), 0.1)
    metrics = take(step, parameter, torch.full((4,), torch.nan))
    assert (metrics["optimizer/skipped"], metrics["optimizer/weights_changed"]) == (1.0, 0.0)
    assert step.lost_steps(metrics) is None


def test_lost_steps_are_reported_once_with_the_remedy() -> None:
    step, parameter = step_of(torch.full((64,), 0.02, dtype=torch.bfloat16), 1e-6)
    warning = step.lost_steps(take(step, parameter))
    assert warning is not None
    assert "changes 0.0% of the trained bfloat16 weights" in warning
    assert "policy.dtype=float32" in warning
    assert step.lost_steps(take(step, parameter)) is None


@pytest.mark.parametrize(("dtype", "rate"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_steps_that_arrive_are_not_reported(dtype: torch.dtype, rate: float) -> None:
    step, parameter = step_of(torch.full((64,), 0.02, dtype=dtype), rate)
    assert step.lost_steps(take(step, parameter)) is None


def test_a_gradient_of_zero_is_not_reported() -> None:
    step, parameter = step_of(torch.full((64,), 0.02, dtype=torch.bfloat16), 1e-6)
    metrics = take(step, parameter, torch.zeros(64))
    assert metrics["optimizer/weights_changed"] == 0.0
    assert step.lost_steps(metrics) is None


def test_a_rate_of_zero_during_warm_up_is_not_reported() -> None:
    step, parameter = step_of(torch.full((64,), 0.02, dtype=torch.bfloat16), 1e-2)
    step.optimizer.param_groups[0]["lr"] = 0.0
    assert step.lost_steps(take(step, parameter)) is None


def test_steps_that_are_rounded_at_random_are_not_reported() -> None:
    parameter = nn.Parameter(torch.full((4096,), 0.01, dtype=torch.bfloat16))
    optimizer = CompactAdamW([{"params": [parameter], "lr": 1e-6}], stochastic=True)
    schedule = build_schedule(optimizer, TrainingConfig(learning_rate=1e-6), 10)
    accelerator = Accelerator(cpu=True)
    step = OptimizerStep(accelerator, [parameter], accelerator.prepare(optimizer), schedule, 1.0, 3)
    metrics = take(step, parameter)
    assert 0 < metrics["optimizer/weights_changed"] < 0.1
    assert step.lost_steps(metrics) is None
