"""Prompts, and a policy that ends early, for the tests of the rollout engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from data import Example, ImageRef
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import decoding, sampler, steps
from mm_cpgd.rollout.conversations import local_session
from tests.fakes import recorded_steps
from tests.fakes.sampling import MANY_ENDS


@pytest.fixture(scope="session")
def prompts(tiny_policy: Policy, noise_image: Callable[..., ImageRef]) -> list[EncodedPrompt]:
    rows = [
        Example("square", "How many?", "3", images=(noise_image(112, 112),)),
        Example("text", "What is it?", "3"),
        Example("wide", "Which one is longer, the red or the blue?", "3", images=(noise_image(300, 84, 1),)),
    ]
    return [tiny_policy.encoder.encode(row) for row in rows]


@pytest.fixture
def many_ends(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the policy's completions end early: many tokens count as end tokens."""
    monkeypatch.setattr(tiny_policy.model.generation_config, "eos_token_id", MANY_ENDS)
    return tiny_policy.end_ids


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record steps on the CPU, several between two looks; has a 1 for each recording."""
    counts: list[int] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        replay = recorded_steps.record(step)
        counts.append(1)
        return replay

    monkeypatch.setattr(steps, "record", record)
    for module in (sampler, local_session):
        monkeypatch.setattr(module, "STEPS_ON_CPU", 3)
    monkeypatch.setattr(decoding, "GRAPH_BLOCK", 8)
    return counts


@pytest.fixture
def token_counts(tiny_policy: Policy) -> Iterator[list[int]]:
    """Number of tokens in each call of the language model's layers."""
    counts: list[int] = []
    handle = tiny_policy.model.model.language_model.layers[0].register_forward_pre_hook(
        lambda module, inputs: counts.append(inputs[0].shape[:2].numel())
    )
    yield counts
    handle.remove()


@pytest.fixture(scope="session")
def vllm_prompts(tiny_policy: Policy, noise_image: Callable[..., ImageRef]) -> list[EncodedPrompt]:
    red, blue = noise_image(112, 112), noise_image(84, 56, 1)
    rows = [
        Example("two", "Which is larger, <image> or <image>?", "3", images=(red, blue)),
        Example("text", "What is it?", "3"),
    ]
    return [tiny_policy.encoder.encode(row) for row in rows]
