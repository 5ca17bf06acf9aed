"""Memory of weights, gradients, optimizer state and reference policy, against numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.distributed import Strategy
from mm_cpgd.preflight.memory_host import host_items
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.memory_state import state_items
from mm_cpgd.preflight.model_size import ModelSize, Weight
from mm_cpgd.preflight.setting import Machines, Setting, plan_setting

Configured = Callable[..., RunConfig]
ONE = Setting(Machines(), Strategy(), 4, half=False)
DDP = replace(ONE, machines=Machines(2))
FSDP2 = Setting(Machines(4, on_gpu=True), Strategy(sharded=True), 4, half=False)


def items(
    config: RunConfig, size: ModelSize, setting: Setting = ONE, reference: bool = False
) -> dict[str, MemoryItem]:
    found = state_items(config, size, setting, 10, reference=reference)
    return {item.name: item for item in found if item.peak}


def adapted(size: ModelSize) -> ModelSize:
    """Return the size with all weights frozen and adapters of 40 values."""
    frozen = [replace(one, trained=False) for one in size.weights]
    return replace(size, weights=(*frozen, Weight((5, 8), "layer 0", adapter=True)))


def test_weights_gradients_and_moments_are_bytes_times_parameters(
    configured: Configured, toy: ModelSize
) -> None:
    found = items(configured("toy"), toy)
    assert found["weights"].rollout == found["weights"].loss == 1240 * 4
    assert (found["gradients"].rollout, found["gradients"].step) == (0, 1040 * 4)
    assert found["optimizer state"].rollout == 2 * 1040 * 4


def test_a_quantized_weight_takes_half_a_byte_and_its_scales(configured: Configured, toy: ModelSize) -> None:
    first, *others = toy.weights
    packed = replace(toy, weights=(replace(first, packed=True, trained=False), *others))
    before, after = (items(configured("toy"), size)["weights"].rollout for size in (toy, packed))
    assert before - after == 4 * first.count - first.count // 2 - first.count // 64


def test_gradients_add_to_the_activations_of_further_micro_batches_only(
    configured: Configured, toy: ModelSize
) -> None:
    # 4 prompts of 10 tokens with 2 completions of 5: 80 tokens in an optimizer step.
    one, three = (
        items(configured("toy", f"training.micro_batch_tokens={tokens}"), toy)["gradients"]
        for tokens in (80, 30)
    )
    assert (one.loss, one.layers, one.step) == (0, 0, 4160)
    assert (three.loss, three.layers, three.step) == (4160, 4160, 4160)


def test_ddp_keeps_buckets_of_all_gradients_for_good(configured: Configured, toy: ModelSize) -> None:
    assert "buckets of gradients" not in items(configured("toy"), toy)
    assert items(configured("toy"), toy, DDP)["buckets of gradients"].rollout == 1040 * 4


def test_a_process_holds_its_rows_of_every_tensor_and_the_whole_frozen_tower(
    configured: Configured, toy: ModelSize
) -> None:
    found = items(configured("toy"), toy, FSDP2)
    # Of 50 and of 10 rows, the first of 4 processes has 13 and 3.
    shard = 2 * 13 * 8 + 3 * 3 * 8
    assert found["weights"].rollout == (shard + 200) * 4
    assert found["gradients"].step == shard * 4
    assert found["optimizer state"].step == 2 * shard * 4
    assert "buckets of gradients" not in found


def test_a_trained_tower_is_divided_as_the_layers_are(configured: Configured, toy: ModelSize) -> None:
    trained = replace(toy, weights=tuple(replace(one, trained=True) for one in toy.weights))
    shard = 2 * 13 * 8 + 3 * 3 * 8 + 7 * 8
    assert items(configured("toy"), trained, FSDP2)["weights"].rollout == shard * 4


@pytest.mark.parametrize(("half", "each"), [(False, 4), (True, 2)])
def test_embeddings_and_head_stay_gathered_and_two_layers_come_and_go(
    configured: Configured, toy: ModelSize, half: bool, each: int
) -> None:
    gathered = items(configured("toy"), toy, replace(FSDP2, half=half))["gathered weights"]
    assert (gathered.rollout, gathered.step) == (0, 0)
    assert gathered.loss == 800 * each
    assert gathered.layers == (800 + 2 * 80) * each


def test_without_resharding_all_layers_stay_gathered(configured: Configured, toy: ModelSize) -> None:
    setting = replace(FSDP2, strategy=Strategy(sharded=True, reshard_after_forward=False))
    gathered = items(configured("toy"), toy, setting)["gathered weights"]
    assert gathered.loss == gathered.layers == 1040 * 4


@pytest.mark.parametrize(("half", "each"), [(False, 4 + 4), (True, 2 + 4)])
def test_gradients_exist_as_computed_and_in_float32_while_they_are_summed(
    configured: Configured, toy: ModelSize, half: bool, each: int
) -> None:
    found = items(configured("toy"), toy, replace(FSDP2, half=half))
    assert found["gradients of a layer"].layers == 80 * each
    assert found["last values"].step == 800 * each


def test_gloo_sums_in_a_copy_of_its_own(configured: Configured, toy: ModelSize) -> None:
    found = items(configured("toy"), toy, replace(FSDP2, machines=Machines(4), half=True))
    assert found["last values"].step == 800 * (2 + 2 * 4)


def test_offloaded_shards_leave_the_frozen_tower_and_what_is_gathered_on_the_gpu(
    configured: Configured, toy: ModelSize
) -> None:
    setting = replace(FSDP2, strategy=Strategy(sharded=True, cpu_offload=True))
    found = items(configured("toy"), toy, setting)
    assert found["weights"].rollout == 200 * 4
    assert not {"gradients", "optimizer state"} & set(found)
    assert found["gathered weights"].loss == 800 * 4


def test_a_cpu_computes_the_denominators_of_one_tensor_and_the_fused_step_of_a_gpu_none(
    configured: Configured, toy: ModelSize
) -> None:
    on_gpu = replace(ONE, machines=Machines(on_gpu=True))
    assert items(configured("toy"), toy)["last values"].step == 2 * 400 * 4
    assert "last values" not in items(configured("toy"), toy, on_gpu)


def test_moments_in_8_bits_take_two_bytes_and_their_scales(configured: Configured, toy: ModelSize) -> None:
    config = configured("toy", "training.optimizer=adamw_8bit")
    setting = plan_setting(config, toy, Machines())
    found = items(config, toy, setting)
    assert found["optimizer state"].rollout == int(1040 * 2 * (1 + 4 / 256))
    # Weights, gradient, two moments, denominator, root and noise of the largest tensor.
    assert found["last values"].step == 7 * 4 * 400


def test_moments_of_bfloat16_weights_that_are_rounded_at_random_are_float32(
    configured: Configured, toy: ModelSize
) -> None:
    config = configured("toy", "policy.dtype=bfloat16", "training.rounding=stochastic")
    found = items(config, toy, plan_setting(config, toy, Machines()))
    assert found["optimizer state"].rollout == 1040 * 2 * 4
    assert found["gradients"].step == 1040 * 2


def test_offloaded_moments_are_in_cpu_memory_and_two_tensors_of_them_on_the_gpu(
    configured: Configured, toy: ModelSize
) -> None:
    config = configured("toy", "training.offload_moments=true")
    setting = plan_setting(config, toy, Machines())
    found = items(config, toy, setting)
    assert "optimizer state" not in found
    assert found["last values"].step == 7 * 4 * 400 + 2 * (2 * 4 * 400)
    (host,) = (
        item for item in host_items(config, toy, setting, reference=False) if item.name == "offloaded moments"
    )
    assert host.each == 1040 * 2 * 4


def test_a_reference_policy_is_counted_only_where_the_objective_needs_one(
    configured: Configured, toy: ModelSize
) -> None:
    assert "reference policy" not in items(configured("toy"), toy)
    assert items(configured("toy"), toy, reference=True)["reference policy"].loss == 1240 * 4
    sharded = items(configured("toy"), toy, FSDP2, reference=True)["reference policy"]
    assert sharded.loss == (2 * 13 * 8 + 3 * 3 * 8 + 200) * 4


def test_adapters_are_float32_and_need_no_copy_of_the_policy_for_a_reference(
    configured: Configured, toy: ModelSize
) -> None:
    found = items(configured("toy"), adapted(toy), replace(ONE, weight=2), reference=True)
    assert "reference policy" not in found
    assert found["weights"].loss == 1240 * 2 + 40 * 4
    assert found["optimizer state"].loss == 2 * 40 * 4


def test_mixed_precision_adds_two_bytes_for_every_whole_float32_weight_that_is_trained(
    configured: Configured, toy: ModelSize
) -> None:
    copies = items(configured("toy"), toy, replace(ONE, half=True))["bf16 copies of weights"]
    assert (copies.loss, copies.layers, copies.step) == (2080, 2080, 0)
    assert "bf16 copies of weights" not in items(configured("toy"), toy, replace(ONE, half=True, weight=2))
    assert "bf16 copies of weights" not in items(configured("toy"), toy, replace(FSDP2, half=True))


def test_recomputed_layers_cast_their_weights_anew_one_at_a_time(
    configured: Configured, toy: ModelSize
) -> None:
    config = configured("toy", "policy.gradient_checkpointing=true")
    copies = items(config, toy, replace(ONE, half=True))["bf16 copies of weights"]
    assert (copies.loss, copies.layers) == (2080, 160)
