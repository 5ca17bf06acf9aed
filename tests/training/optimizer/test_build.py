"""Parameter groups, learning rates, and which optimizer a config gets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText

from mm_cpgd.config.schema import PolicyConfig, TrainingConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.training.optimizer import build_optimizer, build_schedule
from mm_cpgd.training.optimizer.compact import CompactAdamW


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


COMPACT = {
    "training.optimizer=adamw_8bit": {"optimizer": "adamw_8bit"},
    "training.offload_moments": {"offload_moments": True},
}


@pytest.mark.parametrize("options", COMPACT.values(), ids=COMPACT)
def test_the_config_chooses_the_optimizer(tiny_folder: Path, options: dict[str, Any]) -> None:
    policy = load(tiny_folder, freeze_vision=True)
    assert type(build_optimizer(policy, TrainingConfig())) is torch.optim.AdamW
    found = build_optimizer(policy, TrainingConfig(**options, weight_decay=0.1, betas=(0.8, 0.9)))
    assert isinstance(found, CompactAdamW)
    assert (found.eight_bit, found.offload) == ("optimizer" in options, "offload_moments" in options)
    assert {group["betas"] for group in found.param_groups} == {(0.8, 0.9)}
    assert {group["weight_decay"] for group in found.param_groups} == {0.0, 0.1}


def test_stochastic_rounding_of_float32_weights_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="for bfloat16 weights, and all trained weights are float32"):
        build_optimizer(load(tiny_folder, freeze_vision=True), TrainingConfig(rounding="stochastic"))


def test_8_bits_without_their_package_are_refused_with_what_to_install(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm_cpgd.training.optimizer.build.eight_bit_available", lambda: False)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        build_optimizer(load(tiny_folder, freeze_vision=True), TrainingConfig(optimizer="adamw_8bit"))
