"""Memory of a micro-batch, against numbers computed by hand and against what autograd really keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data import load_examples
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.distributed import Strategy
from mm_cpgd.policy import Policy
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.memory_update import update_items
from mm_cpgd.preflight.model_size import ModelSize, measure_model
from mm_cpgd.preflight.setting import Machines, Setting

Configured = Callable[..., RunConfig]
ONE = Setting(Machines(), Strategy(), 4, half=False)


def items(config: RunConfig, size: ModelSize, setting: Setting = ONE) -> dict[str, MemoryItem]:
    return {item.name: item for item in update_items(config, size, setting, 10)}


def test_recomputed_layers_keep_their_inputs_and_one_layer_comes_back(
    configured: Configured, toy: ModelSize
) -> None:
    whole = items(configured("toy"), toy)["activations"]
    kept = items(configured("toy", "policy.gradient_checkpointing=true"), toy)["activations"]
    inputs, passing = 30 * 3 * 8 * 4, 30 * (2 * 8 * 4 + 2 * 16 * 4)
    assert kept.loss == inputs
    assert kept.layers == inputs + whole.loss // 3 + passing
    assert whole.layers == whole.loss + passing


def test_selective_checkpointing_keeps_queries_attention_and_the_gate_too(
    configured: Configured, toy: ModelSize
) -> None:
    full, selective = (
        items(configured("toy", f"policy.gradient_checkpointing={kind}"), toy)["activations"]
        for kind in ("true", "selective")
    )
    kept = 30 * 3 * (8 + 8 + 16) * 4
    assert (selective.loss - full.loss, selective.layers - full.layers) == (kept, kept)


def test_a_process_never_has_more_tokens_than_its_share_of_an_optimizer_step(
    configured: Configured, toy: ModelSize
) -> None:
    config = configured("toy", "training.micro_batch_tokens=100000")
    many = replace(ONE, machines=Machines(4))
    assert items(config, toy)["activations"].how.startswith("80 tokens")
    assert items(config, toy, many)["activations"].how.startswith("20 tokens")


def test_a_trained_vision_tower_adds_activations(configured: Configured, toy: ModelSize) -> None:
    trained = replace(toy, weights=tuple(replace(one, trained=True) for one in toy.weights))
    frozen = items(configured("toy"), toy)["activations"].loss
    assert items(configured("toy"), trained)["activations"].loss > frozen


def test_sharded_mixed_precision_keeps_hidden_states_in_bfloat16(
    configured: Configured, toy: ModelSize
) -> None:
    config = configured("toy", "policy.gradient_checkpointing=true")
    whole = items(config, toy, replace(ONE, half=True))["activations"].loss
    sharded = Setting(Machines(2), Strategy(sharded=True), 4, half=True)
    assert items(config, toy, sharded)["activations"].loss == whole // 2


def test_a_chunk_takes_its_logits_or_the_heads_gradient_twice(configured: Configured, toy: ModelSize) -> None:
    # 10 tokens × 50 logits of 4 bytes; a head of 400 weights, in three chunks.
    config = configured("toy", "training.logprob_chunk=10")
    assert items(config, toy)["logits of a chunk"].loss == max(500 * 16, 500 * 12 + 1600, 500 * 4 + 3200)
    wide = replace(toy, head=4000)
    assert items(config, wide)["logits of a chunk"].loss == 500 * 4 + 2 * 16000


@pytest.mark.usefixtures("layers_as_they_are")  # fused ones keep less
def test_the_estimate_of_activations_is_what_autograd_really_keeps(
    tiny_folder: Path, tiny_policy: Policy, configured: Configured
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
    overrides = [f"training.micro_batch_tokens={tokens}", "rollout.max_new_tokens=32", "rollout.prompts=8"]
    config = configured(tiny_folder, *overrides)
    found = update_items(config, measure_model(config.policy), ONE, longest)
    assert found[0].loss == pytest.approx(measured, rel=0.04)


@pytest.mark.parametrize(("on_gpu", "tokens"), [(True, 16384), (False, 4096)])
def test_a_micro_batch_is_smaller_on_a_cpu_unless_the_config_says(
    configured: Callable[..., RunConfig], on_gpu: bool, tokens: int
) -> None:
    unset = configured("toy", "training.micro_batch_tokens=null").training
    assert unset.tokens_of_pass(on_gpu=on_gpu) == tokens
    assert configured("toy").training.tokens_of_pass(on_gpu=on_gpu) == 30
