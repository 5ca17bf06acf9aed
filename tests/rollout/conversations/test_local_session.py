"""Conversations that leave the batch to their tools and come back: their tokens, and what is computed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.families.build import build_family
from data import Example, ImageRef
from data.generated import generate
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.environments import Observation
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout import Completion, LocalEngine, local
from mm_cpgd.rollout.conversations import local_session
from mm_cpgd.rollout.conversations.sampler import ENVIRONMENT, ConversationSampler
from mm_cpgd.rollout.conversations.state import Limits
from tests.fakes.environments import Looking, Watching
from tests.fakes.recorded_steps import CheckedStep
from tests.fakes.sampling import MANY_ENDS

LIMITS = Limits(turns=5, tokens=600, images=8)
COPIES = 4


class Late(Looking):
    """Replies after a time that nothing but the clock decides."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, most=5)

    def step(self, completion: str) -> Observation:
        time.sleep(random.SystemRandom().uniform(0, 0.06))
        return super().step(completion)


class NoSession:
    """The engine without sessions: turns are sampled in rounds, and each begins with all that came before."""

    def __init__(self, engine: LocalEngine) -> None:
        self.generate = engine.generate


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def policy(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Policy:
    """A random policy of each kind whose turns end after a few tokens."""
    folder = build_family(request.param, tiny_folder, tmp_path_factory.mktemp("family"))
    loaded = load_policy(PolicyConfig(model=str(folder), dtype="float32"))
    loaded.model.generation_config.eos_token_id = MANY_ENDS
    return loaded


@pytest.fixture
def examples(noise_image: Callable[..., ImageRef]) -> list[Example]:
    picture, other = noise_image(84, 56, 7), noise_image(112, 112, 8)
    return [
        Example("1", "How many?", "3", images=(picture,)),
        Example("2", "Why?", "3"),
        Example("3", "Which of both?", "3", images=(picture, other)),
    ]


@pytest.fixture
def converse(policy: Policy, examples: list[Example]) -> Iterator[Callable[..., list[Completion]]]:
    """Sample four conversations of each of three examples."""

    def run(engine: Any, sampling: Sampling, factory: Any = Late, **options: Any) -> list[Completion]:
        policy.encoder.environment = factory
        prompts: list[EncodedPrompt | None] = [policy.encoder.encode(one) for one in examples]
        options = {"seconds": 20, "threads": 16, **options}
        sampler = ConversationSampler(policy, engine, factory, LIMITS, **options)
        seeds = [[partial(seed_of, place, k) for k in range(COPIES)] for place in range(len(examples))]
        return list(chain.from_iterable(sampler.generate(prompts, examples, sampling, seeds)))

    yield run
    policy.encoder.environment = None


def seed_of(place: int, k: int, turn: int) -> int:
    return 1000 * place + 10 * k + turn if turn != ENVIRONMENT else 7 * place + k


def assert_same(found: list[Completion], wanted: list[Completion]) -> None:
    assert [one.tokens.tolist() for one in found] == [one.tokens.tolist() for one in wanted]
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.logprobs, other.logprobs, rtol=1e-5, atol=1e-5)
        assert mine.talk is not None
        assert other.talk is not None
        assert [turn.text for turn in mine.talk.turns] == [turn.text for turn in other.talk.turns]
        assert mine.own.tolist() == other.own.tolist()
        assert (mine.kept is None) == (other.kept is None)
        if mine.kept and other.kept:
            assert mine.kept.counts.tolist() == other.kept.counts.tolist()
            assert mine.kept.ids.tolist() == other.kept.ids.tolist()


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "fixed"])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"top_k": 5}], ids=str)
def test_they_are_those_of_rounds_whatever_the_order_of_the_replies(
    options: dict[str, Any], graph: bool, policy: Policy, converse: Callable[..., list[Completion]]
) -> None:
    sampling = Sampling(8, **options)
    wanted = converse(NoSession(LocalEngine(policy)), sampling)
    turns = [len(one.talk.turns) for one in wanted if one.talk]
    assert max(turns) > 2
    assert len(set(turns)) > 1
    for _ in range(2):
        assert_same(converse(LocalEngine(policy, graph=graph), sampling), wanted)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "fixed"])
def test_after_a_video_they_are_those_of_rounds_too(
    graph: bool, policy: Policy, converse: Callable[..., list[Completion]], examples: list[Example]
) -> None:
    examples[:] = generate(("motion",), 3, seed=3)
    sampling = Sampling(8)
    wanted = converse(NoSession(LocalEngine(policy)), sampling, Watching)
    assert max(len(one.talk.turns) for one in wanted if one.talk) > 1
    assert_same(converse(LocalEngine(policy, graph=graph), sampling, Watching), wanted)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 5}], ids=str)
@pytest.mark.parametrize("room", [None, 20_000])
def test_recorded_steps_change_no_conversation(
    options: dict[str, Any],
    room: int | None,
    policy: Policy,
    converse: Callable[..., list[Completion]],
    recorded: list[int],
) -> None:
    sampling = Sampling(12, **options)
    wanted = converse(NoSession(LocalEngine(policy, graph=False)), sampling)
    assert_same(converse(LocalEngine(policy, graph=True, held_bytes=room), sampling), wanted)
    assert recorded


def test_a_step_of_conversations_needs_nothing_on_the_host(
    policy: Policy, converse: Callable[..., list[Completion]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(local_session, "GraphStep", partial(CheckedStep, found))
    converse(LocalEngine(policy, graph=True), Sampling(4, top_k=5))
    assert found == []


@pytest.mark.parametrize(
    "options", [{"held_bytes": 0}, {"held_bytes": 20_000}, {"batch_prompts": 1}], ids=str
)
def test_they_are_the_same_without_room_for_keys_and_values(
    options: dict[str, Any], policy: Policy, converse: Callable[..., list[Completion]]
) -> None:
    sampling = Sampling(8)
    wanted = converse(NoSession(LocalEngine(policy)), sampling)
    assert_same(converse(LocalEngine(policy, **options), sampling), wanted)
    assert_same(converse(LocalEngine(policy, **options), sampling, rounds=True), wanted)


@pytest.mark.parametrize("room", [None, 0])
def test_only_what_was_observed_is_computed_for_the_next_turn(
    room: int | None,
    policy: Policy,
    converse: Callable[..., list[Completion]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    appended = 0
    compute = local_session.appended_states

    def counting(model: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        nonlocal appended
        appended += ids.numel()
        return compute(model, ids, *rest)

    monkeypatch.setattr(local_session, "appended_states", counting)
    found = converse(LocalEngine(policy, held_bytes=room), Sampling(8), rounds=True)
    talks = [one.talk for one in found if one.talk]
    observed = sum(int((~one.own).sum()) for one in found)
    again = sum(len(talk.turns) - 1 for talk in talks)  # the last token of each turn before an observation
    assert observed > 0
    if room is None:
        assert appended == observed + again
    else:
        assert appended > observed + again


def test_others_go_on_while_a_tool_works(policy: Policy, converse: Callable[..., list[Completion]]) -> None:
    lock, ended, everyone = threading.Lock(), 0, threading.Event()

    class Waiting(Looking):
        def __init__(self, seed: int) -> None:
            super().__init__(seed, most=4)
            self.turns = 4
            self.waits = seed == 0

        def step(self, completion: str) -> Observation:
            nonlocal ended
            if self.waits and self.turn == 0 and not everyone.wait(15):
                raise TimeoutError("the others did not end")
            reply = super().step(completion)
            if reply.done:
                with lock:
                    ended += 1
                    if ended == 3 * COPIES - 1:
                        everyone.set()
            return reply

    monkey = policy.model.generation_config
    monkey.eos_token_id = list(range(policy.head_rows))  # all turns end with their first token
    try:
        found = converse(LocalEngine(policy), Sampling(4), Waiting)
    finally:
        monkey.eos_token_id = MANY_ENDS
    assert everyone.is_set()
    assert all(one.talk and one.talk.failure is None and len(one.talk.turns) == 4 for one in found)


def test_steps_leave_what_others_have_computed_as_it_is(
    policy: Policy, converse: Callable[..., list[Completion]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, alike = 0, True
    steps = local_session.LocalSession._step

    def watching(self: local_session.LocalSession, running: list[int]) -> None:
        nonlocal compared, alike

        def held() -> list[torch.Tensor]:
            return [
                self.decoder.cache.own_keys[0][place, :, : self.rows[row].cached].clone()
                for place, row in enumerate(self.owners)
                if row is not None and place not in running
            ]

        before = held()
        steps(self, running)
        compared += sum(one.numel() for one in before)
        alike &= all(map(torch.equal, before, held()))

    monkeypatch.setattr(local_session.LocalSession, "_step", watching)
    # No place is ever taken away, and turns begin one by one.
    monkeypatch.setattr(local_session, "MAX_FINISHED_SHARE", 1.0)
    monkeypatch.setattr(local_session, "WAITING_SHARE", 0.0)
    converse(LocalEngine(policy), Sampling(8))
    assert compared > 0
    assert alike


def test_half_of_what_is_free_on_a_gpu_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert local._free_bytes(torch.device("cuda")) == 400
    assert local._free_bytes(torch.device("cpu")) is None
