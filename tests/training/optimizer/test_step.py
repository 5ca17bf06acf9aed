"""Parameter groups and learning rates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText

from mm_cpgd.config.schema import PolicyConfig, TrainingConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.training.optimizer import OptimizerStep, build_optimizer, build_schedule


def load(tiny_folder: Path, freeze_vision: bool) -> Policy:
    return load_policy(PolicyConfig(model=str(tiny_folder), freeze_vision=freeze_vision))


def rates(training: TrainingConfig, steps: int) -> list[float]:
    """The learning rates of the first steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    schedule = build_schedule(optimizer, training, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_vision_tower_has_its_own_learning_rate(tiny_folder: Path) -> None:
    policy = load(tiny_folder, freeze_vision=False)
    optimizer = build_optimizer(policy, TrainingConfig(learning_rate=1e-3, vision_learning_rate=1e-5))
    vision = {id(p) for module in vision_modules(policy.model) for p in module.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == (1e-5 if id(parameter) in vision else 1e-3)


def test_every_trained_weight_is_in_one_group_and_no_frozen_one(tiny_folder: Path) -> None:
    policy = load(tiny_folder, freeze_vision=True)
    optimizer = build_optimizer(policy, TrainingConfig())
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in policy.parameters() if p.requires_grad)
    assert len(grouped) < len(list(policy.parameters()))


def test_weight_decay_is_for_matrices_alone(tiny_folder: Path) -> None:
    policy = load(tiny_folder, freeze_vision=True)
    for group in build_optimizer(policy, TrainingConfig(weight_decay=0.1)).param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_nothing_to_train_is_a_user_error(tiny_folder: Path) -> None:
    policy = load(tiny_folder, freeze_vision=True)
    policy.requires_grad_(False)
    with pytest.raises(UserError, match="no weight is trained"):
        build_optimizer(policy, TrainingConfig())


def test_warm_up_counts_with_a_constant_schedule_too() -> None:
    found = rates(TrainingConfig(learning_rate=1.0, schedule="constant", warmup_steps=4), 6)
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_linear_schedule_falls_to_zero_over_the_steps_of_the_run() -> None:
    found = rates(TrainingConfig(learning_rate=1.0, schedule="linear"), 4)
    assert found == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("name", ["linaer", "reduce_lr_on_plateau"])
def test_a_schedule_that_cannot_be_used_is_named_with_the_usable_ones(name: str) -> None:
    with pytest.raises(UserError, match=rf"training\.schedule='{name}' cannot be used.*cosine"):
        rates(TrainingConfig(schedule=name), 1)


def test_a_model_without_a_language_head_is_refused(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load(tiny_folder, freeze_vision=True)
    monkeypatch.setattr(policy.model, "get_output_embeddings", lambda: None)
    with pytest.raises(UserError, match="names no language head"):
        build_optimizer(policy, TrainingConfig())


def test_adapters_in_the_model_folder_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "model")
    shutil.copytree(
        tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True
    )
    with pytest.raises(UserError, match="adapters without a model; merge"):
        load(tmp_path / "model", freeze_vision=True)
    shutil.copy(tiny_folder / "model.safetensors", tmp_path / "model")
    with pytest.raises(UserError, match=r"holds adapters.*merge_and_unload"):
        build_optimizer(load(tmp_path / "model", freeze_vision=True), TrainingConfig())


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
