"""Verdict on a plan's memory: whether it fits, where the peak is, and what lowers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mm_cpgd.config.schema import LoraConfig, RunConfig
from mm_cpgd.preflight.memory import total_of
from mm_cpgd.preflight.model_size import ModelSize, Weight
from mm_cpgd.preflight.setting import Machines, plan_setting
from mm_cpgd.preflight.verdict import Case, judge

Make = Callable[..., Case]


@pytest.fixture
def case(configured: Callable[..., RunConfig], toy: ModelSize) -> Make:
    """Make a case of the toy model with this memory, on processes of a GPU each."""

    def adapted(lora: LoraConfig) -> ModelSize:
        frozen = [replace(one, trained=False) for one in toy.weights]
        return replace(toy, weights=(*frozen, Weight((lora.rank, 8), "layer 0", adapter=True)))

    def make(memory: int | None, *overrides: str, processes: int = 2) -> Case:
        config = configured("toy", *overrides)
        machines = Machines(processes, 1, memory, on_gpu=True)
        return Case(config, toy, plan_setting(config, toy, machines), 10, False, adapted)

    return make


def lines(case: Case) -> tuple[bool | None, list[str]]:
    verdict = judge(case, str)
    return verdict.fits, list(verdict.lines)


def test_a_run_fits_with_a_tenth_to_spare(case: Make) -> None:
    peak = case(None).peak()
    assert lines(case(int(peak / 0.9) + 1))[0] is True
    fits, text = lines(case(peak))
    assert fits is False
    assert text[0].startswith(f"Does not fit safely: {peak} of {peak} on each GPU")
    assert lines(case(peak - 1))[1][0].startswith(f"Does not fit: {peak} of {peak - 1} on each GPU")


def test_the_verdict_names_the_phase_of_the_peak_and_its_largest_part(case: Make) -> None:
    one = case(10**9)
    total = total_of(one.items())
    text = lines(one)[1][0]
    assert text.startswith(f"Fits: {total.peak} of 1000000000 on each GPU; the peak is ")
    largest = max(one.items(), key=lambda item: getattr(item, total.peak_phase))
    assert f"{largest.name}: {getattr(largest, total.peak_phase)}." in text


def test_what_lowers_the_peak_is_listed_with_the_peak_that_it_would_give(case: Make) -> None:
    # One micro-batch of wide rows, so that activations are the largest part.
    wide = ["training.micro_batch_tokens=100000", "rollout.max_new_tokens=500"]
    _, text = lines(case(1, *wide))
    changed = case(1, *wide, "policy.gradient_checkpointing=true").peak()
    assert f"  with policy.gradient_checkpointing=true: {changed}" in text
    gains = [int(line.rpartition(": ")[2]) for line in text if line.startswith("  with")]
    assert gains == sorted(gains)
    assert len(gains) > 1


def test_sharding_is_advised_where_weights_are_whole_and_more_gpus_where_they_are_not(case: Make) -> None:
    small = ["training.micro_batch_tokens=15", "training.logprob_chunk=1", "rollout.batch_prompts=1"]
    whole = "\n".join(lines(case(1, *small, processes=4))[1])
    sharded = "\n".join(lines(case(1, *small, "distributed.strategy=fsdp2", processes=4))[1])
    assert "distributed.strategy=fsdp2" in whole
    assert "twice the GPUs (8)" in sharded
    assert "twice the GPUs" not in whole


def test_without_the_gpus_memory_the_peak_is_named_and_no_verdict_given(case: Make) -> None:
    fits, text = lines(case(None))
    assert fits is None
    assert text[0].startswith(f"Peak about {case(None).peak()} on each process")


def test_a_vllm_whose_weights_exceed_its_share_is_named_with_the_share_that_would_do(case: Make) -> None:
    # 2,480 bytes of weights and 720 of cache; 3,200 of 10,000 with a tenth to spare.
    fits, text = lines(case(10000, "rollout.engine=vllm", "rollout.vllm.memory_share=0.3"))
    assert fits is False
    assert "vLLM gets 3000 (rollout.vllm.memory_share=0.3) and needs 3200" in text[1]
    assert "raise the share to 0.36 at least" in text[1]
    assert not any(
        "vLLM gets" in line
        for line in lines(case(10000, "rollout.engine=vllm", "rollout.vllm.memory_share=0.35"))[1]
    )
