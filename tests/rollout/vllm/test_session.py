"""Sessions of the vLLM engine on fakes: turns are requests, which are added while others are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import pytest

from data import DataError, Example, ImageRef
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.batch import Conversation
from mm_cpgd.rollout import Completion
from mm_cpgd.rollout.conversations.sampler import ConversationSampler
from mm_cpgd.rollout.conversations.sessions import SessionEngine, TurnRequest
from mm_cpgd.rollout.conversations.state import Limits
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.vllm.group import SharingGroup
from tests.fakes.environments import Looking
from tests.fakes.vllm import SAMPLING, colocated
from tests.fakes.vllm_server import FakeServer, running, served

SEEDS = [[2, 4], [6, 8]]
LIMITS = Limits(turns=4, tokens=400, images=8)


class Engines:
    """The engine in this process and that on a server."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.servers: list[FakeServer] = []

    def __call__(self, kind: str) -> VllmEngine:
        if kind == "colocated":
            return colocated(self.policy)[0]
        engine, server = served(self.policy)
        self.servers.append(server)
        return engine


@pytest.fixture
def engines(tiny_policy: Policy) -> Iterator[Engines]:
    found = Engines(tiny_policy)
    with running():
        yield found
    tiny_policy.encoder.environment = None
    with running(*found.servers):
        pass


@pytest.fixture
def converse(tiny_policy: Policy, noise_image: Callable[..., ImageRef]) -> Callable[..., list[Completion]]:
    """Sample two conversations of each of two examples."""
    examples = [
        Example("1", "How many?", "3", images=(noise_image(84, 56, 7),)),
        Example("2", "Why?", "3"),
    ]

    def run(engine: Any) -> list[Completion]:
        tiny_policy.encoder.environment = Looking
        prompts: list[EncodedPrompt | None] = [tiny_policy.encoder.encode(one) for one in examples]
        sampler = ConversationSampler(tiny_policy, engine, Looking, LIMITS, seconds=20, threads=4)
        seeds = [[partial(seed_of, first) for first in group] for group in SEEDS]
        return list(chain.from_iterable(sampler.generate(prompts, examples, SAMPLING, seeds)))

    return run


def seed_of(first: int, turn: int) -> int:
    return first + 10 * turn  # even: the fake ends its turns


class NoSession:
    """The engine without sessions: turns are sampled in rounds."""

    def __init__(self, engine: VllmEngine) -> None:
        self.generate = engine.generate


@pytest.mark.parametrize("kind", ["colocated", "server"])
def test_conversations_are_those_of_rounds(
    kind: str, engines: Engines, converse: Callable[..., list[Completion]]
) -> None:
    wanted = converse(NoSession(engines(kind)))
    found = converse(engines(kind))
    assert max(len(one.talk.turns) for one in wanted if one.talk) > 1
    assert [one.tokens.tolist() for one in found] == [one.tokens.tolist() for one in wanted]
    assert [one.logprobs.tolist() for one in found] == [one.logprobs.tolist() for one in wanted]


def test_processes_that_share_a_vllm_sample_in_rounds(tiny_policy: Policy) -> None:
    engine, _ = colocated(tiny_policy)
    assert isinstance(engine, SessionEngine)
    assert engine.session([], 1, SAMPLING, 8) is not None
    engine.backend.group = SharingGroup(2)  # type: ignore[attr-defined]
    assert engine.session([], 1, SAMPLING, 8) is None


def test_a_session_wakes_vllm_and_what_is_unanswered_is_broken_off(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy, sleep=True)
    llm.calls.clear()
    session = engine.session(vllm_prompts, 1, SAMPLING, 8)
    assert session is not None
    with session as opened:
        for row, prompt in enumerate(vllm_prompts):
            opened.submit(TurnRequest(row, prompt, 2))
        ((row, completion),) = opened.advance()
        assert row == 1
        assert completion is not None
        assert opened.busy
    assert llm.calls[0] == ("wake_up", ["weights", "kv_cache"])
    assert llm.calls[-2:] == [("abort", ["1-0a1b2c3d"], True), ("sleep", 1)]


def test_a_prompt_whose_image_has_vanished_has_no_turn(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    def gone() -> None:
        raise DataError("gone")

    engine, _ = colocated(tiny_policy)
    first, second = vllm_prompts
    lost = EncodedPrompt(
        first.input_ids,
        first.positions,
        conversation=Conversation([], (ImageRef("gone", gone),)),  # type: ignore[arg-type]
    )
    session = engine.session([lost, second], 1, SAMPLING, 8)
    assert session is not None
    with session as opened:
        opened.submit(TurnRequest(0, lost, 2))
        opened.submit(TurnRequest(1, second, 2))
        found = dict(opened.advance())
    assert found[0] is None
    assert found[1] is not None


def test_a_prompt_that_vllm_expands_otherwise_is_noticed(
    tiny_policy: Policy, vllm_prompts: list[EncodedPrompt]
) -> None:
    engine, llm = colocated(tiny_policy)
    llm.model.spoil = lambda ids: ids[:-1]
    session = engine.session(vllm_prompts, 1, SAMPLING, 8)
    assert session is not None
    with session as opened:
        opened.submit(TurnRequest(0, vllm_prompts[0], 2))
        with pytest.raises(UserError, match="tokenizes a prompt differently"):
            opened.advance()
