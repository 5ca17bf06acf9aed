"""Incremental decoding: each prompt is computed once, and both decoders sample the same tokens."""

from __future__ import annotations

import pytest
import torch

from mm_cpgd.policy import EncodedPrompt, Policy
from tests.fakes.sampling import flat, sampled


def test_each_prompt_is_run_once_without_padding_and_each_token_once(
    tiny_policy: Policy, prompts: list[EncodedPrompt], token_counts: list[int]
) -> None:
    sampled(tiny_policy, prompts, [[1, 2], [3, 4], [5, 6]], max_new_tokens=3)
    assert token_counts == [sum(map(len, prompts)), 6, 6]


def test_shared_and_padded_decoding_sample_the_same(
    tiny_policy: Policy,
    prompts: list[EncodedPrompt],
    many_ends: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # More tokens than a block of the cache, and completions that end one after the other.
    seeds = [list(range(i, i + 6)) for i in (0, 6, 12)]
    monkeypatch.setattr("mm_cpgd.rollout.decoding.CACHE_BLOCK", 4)
    shared = flat(sampled(tiny_policy, prompts, seeds, max_new_tokens=20))
    monkeypatch.setattr(tiny_policy, "shared_prefix", False)
    padded = flat(sampled(tiny_policy, prompts, seeds, max_new_tokens=20))
    for one, other in zip(shared, padded, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.finished == other.finished
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)
