"""Weights in autocast's format: results are autocast's own, and the weights are untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import LocalEngine, Sampling, local
from mm_cpgd.rollout.computed_weights import cast_weights
from tests.fakes.sampling import flat

LORA = {"rank": 4, "alpha": 8}
SEEDS = [[1, 2], [3, 4], [5, 6]]


@pytest.fixture
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@pytest.fixture(params=["all weights", "LoRA", "LoRA on bfloat16", "DoRA"])
def policy(request: pytest.FixtureRequest, tiny_folder: Path) -> Policy:
    options: dict[str, dict[str, Any]] = {
        "all weights": {},
        "LoRA": {"lora": LORA},
        "LoRA on bfloat16": {"lora": LORA, "dtype": "bfloat16"},
        "DoRA": {"lora": {**LORA, "dora": True}},
    }
    found = load_policy(PolicyConfig(model=str(tiny_folder), **options[request.param]))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in found.named_parameters():
        if ".lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return found


def sampled(policy: Policy, prompts: list[EncodedPrompt]) -> tuple[list[list[int]], list[torch.Tensor]]:
    completions = flat(LocalEngine(policy).generate(prompts, Sampling(10), SEEDS))
    return [one.tokens.tolist() for one in completions], [one.logprobs for one in completions]


def test_samples_are_those_of_autocast_alone(
    policy: Policy, prompts: list[EncodedPrompt], autocast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, logprobs = sampled(policy, prompts)
    monkeypatch.setattr(local, "cast_weights", lambda model: torch.no_grad())
    usual_tokens, usual = sampled(policy, prompts)
    assert tokens == usual_tokens
    assert all(torch.equal(one, other) for one, other in zip(logprobs, usual, strict=True))


def test_weights_are_cast_within_the_block_alone(policy: Policy, autocast: None) -> None:
    before = {name: (id(value), value.dtype) for name, value in policy.named_parameters()}
    with cast_weights(policy.model):
        layers = policy.model.model.language_model.layers
        formats = {value.dtype for name, value in layers.named_parameters() if "proj" in name}
        assert (torch.float32 in formats) == any("magnitude" in name for name in before)
    assert before == {name: (id(value), value.dtype) for name, value in policy.named_parameters()}


def test_weights_return_after_an_error(tiny_policy: Policy, autocast: None) -> None:
    before = {name: id(value) for name, value in tiny_policy.named_parameters()}
    with pytest.raises(RuntimeError, match="sampling failed"), cast_weights(tiny_policy.model):
        raise RuntimeError("sampling failed")
    assert before == {name: id(value) for name, value in tiny_policy.named_parameters()}


def test_embeddings_tied_to_the_head_are_not_cast(tiny_policy: Policy, autocast: None) -> None:
    model = tiny_policy.model
    with cast_weights(model):
        assert model.get_output_embeddings().weight.dtype == torch.bfloat16
        assert model.get_input_embeddings().weight.dtype == torch.float32


def test_nothing_is_cast_without_autocast(tiny_policy: Policy) -> None:
    with cast_weights(tiny_policy.model):
        assert {value.dtype for value in tiny_policy.parameters()} == {torch.float32}


def test_an_optimizer_step_between_two_calls_is_sampled_from(
    tiny_folder: Path, prompts: list[EncodedPrompt], autocast: None
) -> None:
    policy = load_policy(PolicyConfig(model=str(tiny_folder)))
    first, _ = sampled(policy, prompts)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    second, _ = sampled(policy, prompts)
    assert first != second
