"""Memory of sampling, against numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.distributed import Strategy
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.memory_rollout import engine_items, vllm_cache_bytes, vllm_weight_bytes
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Machines, Setting

Configured = Callable[..., RunConfig]
ONE = Setting(Machines(), Strategy(), 4, half=False)
FSDP2 = Setting(Machines(4, on_gpu=True), Strategy(sharded=True), 4, half=False)
VLLM = "rollout.engine=vllm"


def items(config: RunConfig, size: ModelSize, setting: Setting = ONE) -> dict[str, MemoryItem]:
    return {item.name: item for item in engine_items(config, size, setting, 10)}


@pytest.mark.parametrize(("shared", "prompts"), [("true", 4), ("false", 8)])
def test_the_cache_holds_keys_and_values_of_every_prompt_or_its_copies_and_every_completion(
    configured: Configured, toy: ModelSize, shared: str, prompts: int
) -> None:
    # 4 prompts × 2 completions, 10 tokens and a block of 64, 3 layers, keys and values of width 4, float32.
    config = configured("toy", f"rollout.shared_prefix={shared}")
    assert items(config, toy)["rollout: KV cache"].rollout == (prompts * 10 + 8 * 64) * 3 * 2 * 4 * 4


def test_every_conversation_may_have_a_prefix_with_all_that_came_before(
    configured: Configured, toy: ModelSize
) -> None:
    # 4 prompts × 2 completions, each with 10 tokens of the prompt and up to 100 after it.
    chosen = "rollout.environment={name: plain, max_tokens: 100}"
    found = items(configured("toy", chosen), toy)["rollout: KV cache"]
    assert found.rollout == (8 * (10 + 100) + 8 * 64) * 3 * 2 * 4 * 4


@pytest.mark.parametrize(("high", "tokens"), [(2, 4 * 10 + 8 * 64), (9, 4 * 10 + 8 * 64)])
def test_a_budget_changes_the_cache_only_where_one_call_has_more_completions(
    configured: Configured, toy: ModelSize, high: int, tokens: int
) -> None:
    budget = f"algorithm.budget={{name: knapsack, low: 1, high: {high}}}"
    found = items(configured("toy", budget), toy)["rollout: KV cache"]
    assert found.rollout == tokens * 3 * 2 * 4 * 4


def test_a_budget_may_give_one_prompt_of_a_small_batch_what_the_others_leave(
    configured: Configured, toy: ModelSize
) -> None:
    # One prompt at a time: 5 of the 8 completions, as each of the 3 others has at least one.
    overrides = ["rollout.batch_prompts=1", "algorithm.budget={name: knapsack, low: 1}"]
    found = items(configured("toy", *overrides), toy)["rollout: KV cache"]
    assert found.rollout == (10 + 5 * 64) * 3 * 2 * 4 * 4


def test_processes_share_the_prompts(configured: Configured, toy: ModelSize) -> None:
    found = items(configured("toy"), toy, replace(ONE, machines=Machines(4)))
    assert found["rollout: KV cache"].rollout == (10 + 2 * 64) * 3 * 2 * 4 * 4


def test_an_evaluation_that_needs_more_than_a_rollout_is_what_counts(
    configured: Configured, toy: ModelSize
) -> None:
    rows = "data.eval={path: 'generated:clock', limit: 100}"
    found = items(configured("toy", rows, "evaluation.batch_prompts=50"), toy)
    assert found["evaluation: KV cache"].rollout == (50 * 10 + 50 * 64) * 3 * 2 * 4 * 4


@pytest.mark.parametrize(("half", "each"), [(False, 4), (True, 2)])
def test_shards_are_gathered_for_the_rollout_alone_without_the_tower_that_is_whole_anyway(
    configured: Configured, toy: ModelSize, half: bool, each: int
) -> None:
    copy = items(configured("toy"), toy, replace(FSDP2, half=half))["gathered copy"]
    assert copy == MemoryItem("gathered copy", 1040 * each, how=copy.how)


@pytest.mark.parametrize(
    ("on_gpu", "half", "beside"), [(True, False, 0), (True, True, 1), (False, False, 1), (False, True, 2)]
)
def test_beside_the_copy_the_last_tensor_exists_before_its_cast_and_in_gloos_copy(
    configured: Configured, toy: ModelSize, on_gpu: bool, half: bool, beside: int
) -> None:
    config = configured("toy", "rollout.prompts=1", "rollout.completions=2", "rollout.max_new_tokens=1")
    large = replace(toy, weights=(*toy.weights, replace(toy.weights[0], shape=(100000, 8))))
    found = items(config, large, replace(FSDP2, machines=Machines(4, on_gpu=on_gpu), half=half))
    sampling = sum(item.rollout for name, item in found.items() if name != "gathered copy")
    copy = 801040 * (2 if half else 4)
    assert found["gathered copy"].rollout == copy + max(0, beside * 800000 * 4 - sampling)


def test_vllm_takes_its_share_of_the_gpu_for_good_or_until_it_sleeps(
    configured: Configured, toy: ModelSize
) -> None:
    setting = replace(ONE, machines=Machines(gpu_memory=1000, on_gpu=True))
    awake, asleep = (
        items(configured("toy", VLLM, f"rollout.vllm.sleep={value}"), toy, setting)["vLLM"]
        for value in ("false", "true")
    )
    assert (awake.rollout, awake.loss, awake.layers, awake.step) == (300, 300, 300, 300)
    assert (asleep.rollout, asleep.loss, asleep.step) == (300, 0, 0)


def test_a_sleeping_vllm_stays_awake_while_it_samples_ahead(configured: Configured, toy: ModelSize) -> None:
    config = configured("toy", VLLM, "rollout.vllm.sleep=true", "rollout.ahead=1")
    setting = replace(ONE, machines=Machines(gpu_memory=1000, on_gpu=True))
    assert items(config, toy, setting)["vLLM"].loss == 300


@pytest.mark.parametrize(("weights", "sent"), [("folder", 400 * 4), ("nccl", 400 * 4 + 1240 * 4)])
def test_shards_go_to_a_server_by_tensors_and_buckets_and_nothing_else_is_kept_here(
    configured: Configured, toy: ModelSize, weights: str, sent: int
) -> None:
    config = configured("toy", VLLM, "rollout.vllm.mode=server", f"rollout.vllm.weights={weights}")
    found = items(config, toy, FSDP2)
    assert {name: item.rollout for name, item in found.items()} == {"weights for vLLM": sent}


def test_tensor_parallel_processes_divide_weights_and_cache(configured: Configured, toy: ModelSize) -> None:
    one, two = (configured("toy", VLLM, f"rollout.vllm.tensor_parallel={count}") for count in (1, 2))
    assert (vllm_weight_bytes(one, toy), vllm_weight_bytes(two, toy)) == (2480, 1240)
    assert vllm_cache_bytes(one, toy, 10) == 15 * 3 * 2 * 4 * 2 == 2 * vllm_cache_bytes(two, toy, 10)
    float32 = configured("toy", VLLM, "rollout.vllm.options={dtype: float32}")
    assert vllm_weight_bytes(float32, toy) == 4960


def test_a_gpu_holds_two_prompts_in_memory_for_each_that_is_sampled_if_more_wait(
    configured: Configured, toy: ModelSize
) -> None:
    on_gpu = replace(ONE, machines=Machines(1, on_gpu=True))
    for setting, batch, prefixes in ((ONE, 1, 1), (on_gpu, 1, 2), (on_gpu, 3, 4), (on_gpu, 4, 4)):
        found = items(configured("toy", f"rollout.batch_prompts={batch}"), toy, setting)
        expected = (prefixes * 10 + batch * 2 * 64) * 3 * 2 * 4 * 4
        assert found["rollout: KV cache"].rollout == expected
