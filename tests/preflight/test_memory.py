"""Estimate of a run's memory, against numbers computed by hand and against a real policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BlipConfig

from data import load_examples
from mm_cpgd.config.schema import LoraConfig, PolicyConfig, RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.preflight.memory import Blocks, MemoryItem, ModelSize, estimate_memory, measure_model, total_of

# Small round numbers: 1,000 weights of 4 bytes, 400 of them trained.
SIZE = ModelSize("Toy", 1000, 0, 400, 600, 4, 50, Blocks(3, 8, 16, 4), Blocks(2, 4, 8, 4))


def items(config: RunConfig, size: ModelSize = SIZE, reference: bool = False) -> dict[str, MemoryItem]:
    return {item.name: item for item in estimate_memory(config, size, 10, reference=reference)}


def test_weights_gradients_and_moments_are_bytes_times_parameters(
    configured: Callable[..., RunConfig],
) -> None:
    found = items(configured("toy"))
    assert (found["weights"].update, found["weights"].rollout) == (4000, 4000)
    assert (found["gradients"].update, found["gradients"].rollout) == (1600, 0)
    assert (found["optimizer state"].update, found["optimizer state"].rollout) == (3200, 3200)


def test_a_reference_policy_is_counted_only_where_the_objective_needs_one(
    configured: Callable[..., RunConfig],
) -> None:
    assert "reference policy" not in items(configured("toy"))
    assert items(configured("toy"), reference=True)["reference policy"].update == 4000


def test_adapters_need_no_copy_of_the_policy_for_a_reference(configured: Callable[..., RunConfig]) -> None:
    lora = replace(SIZE, adapters=40, trained=40, weight_bytes=2)
    found = items(configured("toy"), lora, reference=True)
    assert "reference policy" not in found
    assert found["weights"].update == 1000 * 2 + 40 * 4
    assert found["optimizer state"].update == 2 * 40 * 4


def test_mixed_precision_adds_two_bytes_for_every_float32_weight_that_is_trained(
    configured: Callable[..., RunConfig],
) -> None:
    config = configured("toy", "training.mixed_precision=bf16")
    assert items(config)["bf16 copies of weights"].update == 800
    assert "bf16 copies of weights" not in items(config, replace(SIZE, weight_bytes=2))


@pytest.mark.parametrize(("shared", "prompts"), [("true", 4), ("false", 8)])
def test_the_cache_holds_keys_and_values_of_every_prompt_or_its_copies_and_every_completion(
    configured: Callable[..., RunConfig], shared: str, prompts: int
) -> None:
    # 4 prompts × 2 completions, 10 and 5 tokens, 3 layers, keys and values of width 4, float32.
    config = configured("toy", f"rollout.shared_prefix={shared}")
    assert items(config)["rollout: KV cache"].rollout == (prompts * 10 + 8 * 5) * 3 * 2 * 4 * 4


def test_gradient_checkpointing_keeps_layer_inputs_and_one_layer(
    configured: Callable[..., RunConfig],
) -> None:
    name = "activations of a micro-batch"
    whole = items(configured("toy"))[name].update
    tokens = 2 * 15
    kept = items(configured("toy", "policy.gradient_checkpointing=true"))[name].update
    assert kept == whole // 3 + tokens * 3 * 8 * 4


def test_a_trained_vision_tower_adds_activations(configured: Callable[..., RunConfig]) -> None:
    name = "activations of a micro-batch"
    frozen, trained = (
        items(configured("toy", f"policy.freeze_vision={value}"))[name].update for value in ("true", "false")
    )
    assert trained > frozen


def test_the_total_is_the_sum_of_the_items_in_each_phase() -> None:
    whole = total_of([MemoryItem("a", 1, 2, ""), MemoryItem("b", 10, 0, "")])
    assert (whole.update, whole.rollout) == (11, 2)


@pytest.mark.parametrize(
    "changes",
    [{}, {"freeze_vision": False}, {"lora": LoraConfig(rank=4)}, {"lora": LoraConfig(targets=["q_proj"])}],
)
def test_parameters_are_counted_without_weights_as_the_loaded_policy_counts_them(
    tiny_folder: Path, changes: dict[str, Any]
) -> None:
    config = PolicyConfig(model=str(tiny_folder), **changes)
    size = measure_model(config)
    loaded = list(load_policy(config).parameters())
    assert size.total + size.adapters == sum(p.numel() for p in loaded)
    assert size.trained == sum(p.numel() for p in loaded if p.requires_grad)


def test_the_estimate_of_activations_is_what_autograd_really_keeps(
    tiny_folder: Path, tiny_policy: Policy, configured: Callable[..., RunConfig]
) -> None:
    examples = load_examples("generated:all", limit=8).examples
    prompts = [tiny_policy.encoder.encode(example) for example in examples]
    longest = max(map(len, prompts))
    own = {parameter.untyped_storage().data_ptr() for parameter in tiny_policy.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tiny_policy(prompts, torch.full((8, 32), 100), torch.ones(8, 32, dtype=torch.bool))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    # Nothing is predicted after a completion's last token.
    tokens = sum(map(len, prompts)) + 8 * 31
    config = configured(tiny_folder, f"training.micro_batch_tokens={tokens}", "rollout.max_new_tokens=32")
    size = measure_model(config.policy)
    named = {item.name: item for item in estimate_memory(config, size, longest, reference=False)}
    assert named["activations of a micro-batch"].update == pytest.approx(measured, rel=0.04)


def test_a_model_whose_parts_are_elsewhere_is_refused(tmp_path: Path) -> None:
    BlipConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'blip' model, which is not supported"):
        measure_model(PolicyConfig(model=str(tmp_path)))
