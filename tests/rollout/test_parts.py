"""Groups in parts: from one stream where the engine has one, else by one call for each part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Group, GroupsInParts, LocalEngine, Sampling
from tests.fakes.sampling import flat

SEEDS = [[1, 2], [3, 4], [5, 6], [7, 8]]


class CallByCall:
    """Has no stream."""

    def __init__(self, local: LocalEngine) -> None:
        self.local = local
        self.sizes: list[int] = []

    def generate(self, prompts: Sequence[Any], sampling: Sampling, seeds: Any) -> list[Group]:
        self.sizes.append(len(prompts))
        return self.local.generate(prompts, sampling, seeds)


@pytest.fixture
def four(prompts: list[EncodedPrompt]) -> list[EncodedPrompt]:
    return [*prompts, prompts[0]]


def in_parts(engine: Any, prompts: Sequence[EncodedPrompt | None]) -> list[Group]:
    with GroupsInParts(engine, Sampling(6), SEEDS) as parted:
        known = prompts if parted.needs_all else prompts[:2]
        first = parted.take(known, slice(0, 2))
        return first + parted.take(prompts, slice(2, 4))


def test_parts_are_those_of_one_call_with_or_without_a_stream(
    tiny_policy: Policy, four: list[EncodedPrompt]
) -> None:
    engine = LocalEngine(tiny_policy, batch_prompts=1, graph=True)
    wanted = [one.tokens.tolist() for one in flat(engine.generate(four, Sampling(6), SEEDS))]
    for one in (engine, CallByCall(engine)):
        assert [c.tokens.tolist() for c in flat(in_parts(one, four))] == wanted


def test_a_lost_prompt_has_no_completions_and_shifts_none(
    tiny_policy: Policy, four: list[EncodedPrompt]
) -> None:
    engine = LocalEngine(tiny_policy)
    whole = engine.generate(four, Sampling(6), SEEDS)
    for one in (engine, CallByCall(engine)):
        groups = in_parts(one, [four[0], None, four[2], four[3]])
        assert groups[1] == []
        for index in (0, 2, 3):
            assert [c.text for c in groups[index]] == [c.text for c in whole[index]]


def test_an_engine_without_a_stream_is_called_for_each_part_even_an_empty_one(
    tiny_policy: Policy, four: list[EncodedPrompt]
) -> None:
    engine = CallByCall(LocalEngine(tiny_policy))
    in_parts(engine, [*four[:2], None, None])
    assert engine.sizes == [2, 0]


def test_a_stream_that_is_left_early_gives_the_policy_back(
    tiny_policy: Policy, four: list[EncodedPrompt]
) -> None:
    tiny_policy.train()
    try:
        with GroupsInParts(
            LocalEngine(tiny_policy, batch_prompts=1, graph=True), Sampling(6), SEEDS
        ) as parted:
            parted.take(four, slice(0, 1))
            assert not tiny_policy.training
        assert tiny_policy.training
    finally:
        tiny_policy.eval()


def test_groups_are_given_before_all_are_sampled(
    tiny_policy: Policy, four: list[EncodedPrompt], token_counts: list[int]
) -> None:
    stream: Iterator[Group] = LocalEngine(tiny_policy, batch_prompts=1, graph=True).stream(
        four, Sampling(6), SEEDS
    )
    next(stream)
    begun = len(token_counts)
    assert len(list(stream)) == 3
    assert len(token_counts) > 2 * begun
