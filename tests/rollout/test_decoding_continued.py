"""Conversations that continue a prompt draw what prompts of their own draw; the prompt is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.families.build import build_family
from data import ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt, extend
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout import LocalEngine, decoding
from tests.fakes.conversations import rows_of, scripts


def continued(policy: Policy, noise_image: Callable[..., ImageRef]) -> list[ContinuedPrompt]:
    """Return three conversations, two of one prompt and out of order, and one of another."""
    scripted = [scripts(noise_image)[place] for place in (3, 0, 1)]
    rows = rows_of(policy, scripted)
    found = []
    for prompt, tokens, mask, suffix in zip(rows.prompts, rows.tokens, rows.mask, rows.suffixes, strict=True):
        assert suffix is not None
        length = int(mask.nonzero().max()) + 1
        found.append(extend(prompt, tokens[:length], suffix))
    return [found[1], found[0], found[2]]


def alone(prompt: ContinuedPrompt) -> EncodedPrompt:
    """Return it as an ordinary prompt."""
    return EncodedPrompt(**{field.name: getattr(prompt, field.name) for field in fields(EncodedPrompt)})


@pytest.mark.parametrize("batch_prompts", [1, 8])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_they_draw_what_prompts_of_their_own_draw(
    family: str,
    temperature: float,
    batch_prompts: int,
    tiny_folder: Path,
    tmp_path: Path,
    noise_image: Callable[..., ImageRef],
) -> None:
    folder = build_family(family, tiny_folder, tmp_path)
    policy = load_policy(PolicyConfig(model=str(folder), dtype="float32"))
    prompts = continued(policy, noise_image)
    engine = LocalEngine(policy, batch_prompts)
    sampling = Sampling(6, temperature=temperature)
    seeds = [[3], [4], [5]]
    found = engine.generate(prompts, sampling, seeds)
    wanted = engine.generate([alone(one) for one in prompts], sampling, seeds)
    for (mine,), (other,) in zip(found, wanted, strict=True):
        assert mine.tokens.tolist() == other.tokens.tolist()
        torch.testing.assert_close(mine.logprobs, other.logprobs, rtol=1e-4, atol=1e-4)


def test_a_prompt_that_several_continue_is_computed_once(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = continued(tiny_policy, noise_image)
    sizes: list[int] = []

    def counting(model: Any, cache: Any, unique: Any, batch: Any, *rest: Any) -> Any:
        sizes.append(batch.layout.tokens)
        return hidden_states(model, cache, unique, batch, *rest)

    hidden_states = decoding.hidden_states
    monkeypatch.setattr(decoding, "hidden_states", counting)
    LocalEngine(tiny_policy, 2).generate(prompts, Sampling(2, temperature=0.0), [[0]] * 3)
    different = {id(one.prompt): len(one.prompt) for one in prompts}
    assert sizes == [sum(different.values()) + sum(len(one.tokens) for one in prompts)]
