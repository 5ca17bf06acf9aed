"""Conversations as the local engine samples them: their tokens, log-probabilities, limits and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from data import DataError, Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.environments import Message, Observation
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.distribution import KeptTokens, Sampling
from mm_cpgd.rollout import Completion, LocalEngine
from mm_cpgd.rollout.conversations.sampler import ENVIRONMENT, ConversationSampler
from mm_cpgd.rollout.conversations.state import Limits
from mm_cpgd.training.experience import pad_tokens
from rewards import Status
from tests.fakes.environments import Looking

LIMITS = Limits(turns=4, tokens=400, images=8)


class Failing:
    """Environment that shows an image which cannot be opened."""

    def __init__(self, seed: int) -> None:
        pass

    def reset(self, example: Example) -> Sequence[Message]:
        return [Message.of("user", example.question)]

    def step(self, completion: str) -> Observation:
        def gone() -> None:
            raise DataError("gone")

        return Observation((Message.of("tool", ImageRef("gone", gone)),))  # type: ignore[arg-type]


class Fickle(Failing):
    """Environment that writes another prompt for each seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def reset(self, example: Example) -> Sequence[Message]:
        return [Message.of("user", f"{example.question} {self.seed}")]


@pytest.fixture(scope="module")
def policy(wordy_folder: Path) -> Policy:
    """A random policy whose turns end after a few tokens."""
    return load_policy(PolicyConfig(model=str(wordy_folder), dtype="float32"))


@pytest.fixture
def examples(noise_image: Callable[..., ImageRef]) -> list[Example]:
    picture = (noise_image(84, 56, 7),)
    return [Example("1", "How many?", "3", images=picture), Example("2", "Why?", "3")]


@pytest.fixture
def sample(policy: Policy, examples: list[Example]) -> Iterator[Callable[..., list[list[Completion]]]]:
    """Sample three conversations of each example."""

    def run(factory: Any, sampling: Sampling, limits: Limits = LIMITS, **options: Any) -> Any:
        policy.encoder.environment = factory
        prompts: list[EncodedPrompt | None] = [policy.encoder.encode(one) for one in examples]
        engine = LocalEngine(policy)
        sampler = ConversationSampler(policy, engine, factory, limits, seconds=20, threads=4)
        seeds = [[partial(seed_of, place, k) for k in range(3)] for place in range(len(examples))]
        return prompts, sampler.generate(prompts, examples, sampling, seeds)

    yield run
    policy.encoder.environment = None


def seed_of(place: int, k: int, turn: int) -> int:
    return 1000 * place + 10 * k + turn if turn != ENVIRONMENT else 7 * place + k


def looking(seed: int) -> Looking:
    return Looking(seed, most=4)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.6}], ids=str)
def test_what_was_sampled_has_the_log_probabilities_that_are_trained(
    sample: Any, policy: Policy, options: dict[str, Any]
) -> None:
    sampling = Sampling(6, **options)
    prompts, groups = sample(looking, sampling)
    rows = [
        (prompt, one)
        for prompt, group in zip(prompts, groups, strict=True)
        for one in group
        if one.kept or not sampling.has_cuts
    ]
    completions = [one for _, one in rows]
    assert len(rows) == 6
    assert any(one.talk and len(one.talk.turns) > 1 for one in completions)
    tokens, mask = pad_tokens([one.tokens for one in completions], [one.own for one in completions])
    kept = None
    if sampling.has_cuts:
        kept = KeptTokens.stack([one.kept for one in completions if one.kept])
    with torch.no_grad():
        found, _ = policy(
            [prompt for prompt, _ in rows],
            tokens,
            mask,
            temperature=sampling.temperature,
            kept=kept,
            suffixes=[one.talk.suffix if one.talk else None for one in completions],
        )
    sampled, _ = pad_tokens([one.logprobs for one in completions])
    torch.testing.assert_close(found, sampled.float(), rtol=1e-3, atol=1e-3)


def test_turns_and_observations_follow_each_other_and_the_last_is_a_turn(sample: Any, policy: Policy) -> None:
    _, groups = sample(looking, Sampling(6))
    for one in (one for group in groups for one in group):
        assert one.talk is not None
        runs = torch.diff(one.own.int()).abs().sum()
        assert runs == 2 * (len(one.talk.turns) - 1)
        assert one.own[0]
        assert one.own[-1]
        assert one.length == sum(turn.tokens for turn in one.talk.turns)
        assert not one.logprobs[~one.own].any()
        text = policy.tokenizer.decode(one.tokens)
        shown = [turn for turn in one.talk.turns if turn.observed]
        assert [f"Look {number}: " in text for number, _ in enumerate(shown, 1)] == [True] * len(shown)


@pytest.mark.parametrize("tokens", [3, 20, 30, 41, 55])
def test_no_conversation_is_longer_than_its_limit(sample: Any, tokens: int) -> None:
    limits = Limits(turns=4, tokens=tokens, images=8)
    _, groups = sample(looking, Sampling(6), limits)
    _, whole = sample(looking, Sampling(6))
    for cut, one in zip(chain.from_iterable(groups), chain.from_iterable(whole), strict=True):
        assert len(cut.tokens) <= tokens
        assert cut.own[-1]
        assert cut.tokens.tolist() == one.tokens[: len(cut.tokens)].tolist()
        if len(one.tokens) > tokens:
            assert cut.talk.cut == "tokens"
            assert not cut.finished


def test_an_image_that_cannot_be_opened_costs_the_conversation(sample: Any) -> None:
    _, groups = sample(Failing, Sampling(12))
    ended = [one for one in chain.from_iterable(groups) if one.talk.failure]
    assert ended
    for one in ended:
        assert one.talk.failure.status is Status.ERROR
        assert "its image cannot be used: gone" in one.talk.failure.reason
        assert len(one.talk.turns) == 1


def test_another_prompt_for_another_seed_is_refused(sample: Any) -> None:
    with pytest.raises(UserError, match=r"reset writes another prompt for another seed \(row '[12]'\)"):
        sample(Fickle, Sampling(4))


def test_a_row_that_is_lost_has_no_conversation(policy: Policy, examples: list[Example], sample: Any) -> None:
    policy.encoder.environment = looking
    prompts = [None, policy.encoder.encode(examples[1])]
    sampler = ConversationSampler(policy, LocalEngine(policy), looking, LIMITS, seconds=20, threads=4)
    seeds = [[partial(seed_of, place, k) for k in range(2)] for place in range(2)]
    assert [len(group) for group in sampler.generate(prompts, examples, Sampling(4), seeds)] == [0, 2]
