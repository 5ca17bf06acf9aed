"""Sampling loop: a completion depends neither on places that are filled again nor on recorded steps."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any

import pytest
import torch

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Completion, Group, LocalEngine, Sampling, decoding, sampler
from mm_cpgd.rollout.kept import KeptSteps
from mm_cpgd.rollout.shared_cache import SharedCache
from tests.fakes.recorded_steps import CheckedStep
from tests.fakes.sampling import flat

SEEDS = [list(range(i, i + 5)) for i in range(0, 45, 5)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 30},
    {"top_p": 0.7},
    {"min_p": 0.2, "min_p_first": True},
]


def ids(groups: list[Group]) -> list[list[int]]:
    return [completion.tokens.tolist() for completion in flat(groups)]


def assert_same(found: list[Group], expected: list[Group]) -> None:
    assert ids(found) == ids(expected)
    for one, other in zip(flat(found), flat(expected), strict=True):
        assert (one.finished, one.text) == (other.finished, other.text)
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)
        assert kept(one) == kept(other)


def kept(completion: Completion) -> tuple[list[int], list[int]] | None:
    if completion.kept is None:
        return None
    return completion.kept.counts.flatten().tolist(), completion.kept.ids.tolist()


@pytest.fixture
def nine_prompts(prompts: list[EncodedPrompt]) -> list[EncodedPrompt]:
    return prompts * 3


@pytest.mark.parametrize("options", OPTIONS)
def test_places_that_are_filled_again_change_no_completion(
    tiny_policy: Policy, nine_prompts: list[EncodedPrompt], many_ends: list[int], options: dict[str, Any]
) -> None:
    sampling = Sampling(**{"max_new_tokens": 12, **options})
    at_once = LocalEngine(tiny_policy).generate(nine_prompts, sampling, SEEDS)
    refilled = LocalEngine(tiny_policy, batch_prompts=2, graph=True).generate(nine_prompts, sampling, SEEDS)
    assert_same(refilled, at_once)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("batch_prompts", [2, 32])
def test_recorded_steps_change_no_completion(
    tiny_policy: Policy,
    nine_prompts: list[EncodedPrompt],
    many_ends: list[int],
    recorded: list[int],
    options: dict[str, Any],
    batch_prompts: int,
) -> None:
    sampling = Sampling(**{"max_new_tokens": 12, **options})
    usual = LocalEngine(tiny_policy, graph=False).generate(nine_prompts, sampling, SEEDS)
    engine = LocalEngine(tiny_policy, batch_prompts, graph=True)
    assert_same(engine.generate(nine_prompts, sampling, SEEDS), usual)
    assert recorded


def test_a_graph_is_recorded_once_for_each_size_of_the_cache(
    tiny_policy: Policy, prompts: list[EncodedPrompt], recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_policy.model.generation_config, "eos_token_id", None)
    LocalEngine(tiny_policy, graph=True).generate(prompts, Sampling(32), SEEDS[:3])
    # 8, 16 and 32 tokens of a completion.
    assert len(recorded) == 3


@pytest.mark.parametrize("options", OPTIONS)
def test_a_step_needs_nothing_on_the_host(
    tiny_policy: Policy,
    prompts: list[EncodedPrompt],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    found: list[str] = []
    monkeypatch.setattr(sampler, "GraphStep", functools.partial(CheckedStep, found))
    sampling = Sampling(**{"max_new_tokens": 4, **options})
    LocalEngine(tiny_policy, graph=True).generate(prompts, sampling, SEEDS[:3])
    assert found == []


def test_a_full_store_of_kept_tokens_is_read_in_time(
    tiny_policy: Policy,
    prompts: list[EncodedPrompt],
    many_ends: list[int],
    recorded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampling = Sampling(12, top_p=0.7)
    usual = LocalEngine(tiny_policy).generate(prompts, sampling, SEEDS[:3])
    monkeypatch.setattr(KeptSteps, "most_steps", lambda places, vocabulary: 2)
    monkeypatch.setattr(sampler, "STEPS_ON_CPU", 16)
    assert_same(LocalEngine(tiny_policy, graph=True).generate(prompts, sampling, SEEDS[:3]), usual)


def test_refilling_needs_fewer_steps_than_batch_after_batch(
    tiny_policy: Policy, nine_prompts: list[EncodedPrompt], many_ends: list[int], token_counts: list[int]
) -> None:
    engine = LocalEngine(tiny_policy, batch_prompts=3, graph=True)
    engine.generate(nine_prompts, Sampling(24), SEEDS)
    refilled = len(token_counts)
    token_counts.clear()
    for first in (0, 3, 6):
        engine.generate(nine_prompts[first : first + 3], Sampling(24), SEEDS[first : first + 3])
    assert refilled < 0.8 * len(token_counts)


def test_the_cache_is_freed_as_soon_as_all_is_sampled(
    tiny_policy: Policy, prompts: list[EncodedPrompt], recorded: list[int]
) -> None:
    caches = []
    made = SharedCache.__init__

    def noted(self: SharedCache, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        caches.append(weakref.ref(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedCache, "__init__", noted)
        gc.disable()
        try:
            LocalEngine(tiny_policy, graph=True).generate(prompts, Sampling(8), SEEDS[:3])
            assert [cache() for cache in caches] == [None]
        finally:
            gc.enable()


def test_later_prompts_are_prefilled_in_smaller_parts_beside_the_cache(
    tiny_policy: Policy, nine_prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    load = decoding.SharedDecoder.load

    def noted(self: Any, prompts: Any, slots: Any) -> None:
        sizes.append(len(prompts))
        load(self, prompts, slots)

    monkeypatch.setattr(decoding.SharedDecoder, "load", noted)
    monkeypatch.setattr(sampler, "LATER_SHARE", 1 / 2)
    LocalEngine(tiny_policy, batch_prompts=4, graph=True).generate(nine_prompts, Sampling(4), SEEDS)
    assert sizes == [4, 2, 2, 1]
