"""Prompts to experience: selection, refilling, unscored completions, several processes. No model is run."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from data import Example, PromptSampler
from mm_cpgd.algorithms.objective import build_objective
from mm_cpgd.config.schema import AlgorithmConfig, PartConfig, RolloutConfig
from mm_cpgd.errors import UserError
from mm_cpgd.interrupt import Interrupted
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.rollout import Completion, Group, Sampling
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Collected
from rewards import RewardSum, Status, Verdict
from rewards.registry import rule

FILTER = PartConfig(name="accuracy_filter", low=0.2, high=0.9)


@rule("collection_test_number")
def number(completion: str, example: Example) -> Verdict | float:
    """The completion is its own score; ``?`` cannot be scored, ``!`` fails."""
    if completion in "?!":
        return Verdict(None, Status.UNPARSABLE_GOLD if completion == "?" else Status.ERROR)
    return float(completion)


class Accelerator:
    """One of several processes, which are threads here."""

    device = torch.device("cpu")

    def __init__(self, rank: int = 0, workers: int = 1) -> None:
        self.process_index, self.num_processes = rank, workers
        self.is_main_process = rank == 0
        self.board: list[Any] = [None]
        self.barrier = threading.Barrier(1)

    def autocast(self) -> Any:
        return contextlib.nullcontext()

    def gather(self, mine: Tensor) -> Tensor:
        self.board[self.process_index] = mine
        self.barrier.wait(10)
        everyone = torch.cat(self.board)
        self.barrier.wait(10)
        return everyone


class Policy:
    """Encodes an example as its own number."""

    def __init__(self) -> None:
        self.encoder = self

    def encode(self, example: Example) -> EncodedPrompt:
        ids = torch.tensor([int(example.id)])
        return EncodedPrompt(ids, torch.zeros(1, 1, dtype=torch.long))


class Engine:
    """Answers as scripted; a completion is as many tokens long as its place in the group counts."""

    def __init__(self, script: Callable[[int], Sequence[str]]) -> None:
        self.script = script
        self.seeds: dict[int, list[int]] = {}
        self.calls: list[int] = []

    def load_weights(self, policy: Any) -> None:
        pass

    def release(self) -> None:
        pass

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        self.calls.append(len(prompts))
        ids = [int(prompt.input_ids[0]) for prompt in prompts]
        self.seeds |= dict(zip(ids, map(list, seeds), strict=True))
        return [
            [
                Completion(torch.full((k + 1,), i), torch.zeros(k + 1), text, finished=k > 0)
                for k, text in enumerate(self.script(i))
            ]
            for i in ids
        ]


def collector(
    script: Callable[[int], Sequence[str]],
    *selection: PartConfig,
    prompts: int = 4,
    completions: int = 2,
    mini_batch_prompts: int = 4,
    batch_prompts: int = 8,
    process: Accelerator | None = None,
) -> Collector:
    accelerator: Any = process or Accelerator()
    policy: Any = Policy()
    config = AlgorithmConfig(
        advantage=PartConfig(name="group_mean"),
        surrogate=PartConfig(name="policy_gradient"),
        aggregation=PartConfig(name="token_mean"),
        selection=list(selection),
    )
    return Collector(
        RolloutConfig(
            prompts=prompts, completions=completions, max_new_tokens=8, batch_prompts=batch_prompts
        ),
        accelerator,
        policy,
        Engine(script),
        RewardSum([("collection_test_number", 1.0, {})]),
        build_objective(config, completions=completions, max_new_tokens=8),
        [Example(str(i), "?", "0") for i in range(100)],
        PromptSampler(100, 0),
        mini_batch_prompts=mini_batch_prompts,
        seed=7,
    )


def drawn(count: int) -> list[int]:
    return PromptSampler(100, 0).take(count)


def in_turn(*groups: str) -> Callable[[int], Sequence[str]]:
    """Script the prompts in the order in which they are drawn."""
    answers = dict(zip(drawn(len(groups)), (group.split() for group in groups), strict=True))
    return lambda index: answers[index]


def test_the_accuracy_filter_keeps_prompts_that_are_neither_too_hard_nor_too_easy() -> None:
    found = collector(in_turn("0 0", "0 1", "1 1", "0.5 0"), FILTER).collect(1)
    order = drawn(4)
    assert found.experience.examples == [order[1], order[3]]
    assert found.experience.advantages.tolist() == [-0.5, 0.5, 0.25, -0.25]
    assert found.metrics["groups/kept"] == 0.5
    assert found.metrics["groups/no_signal"] == 0.5
    assert found.metrics["reward/mean"] == pytest.approx(3.5 / 8)


def test_prompts_that_are_left_out_are_reported_without_an_advantage() -> None:
    found = collector(in_turn("0 0", "0 1", "1 ?", "0.5 0"), FILTER).collect(1)
    advantages = [[one.advantage for one in prompt.completions] for prompt in found.rollouts]
    assert advantages == [[None, None], [-0.5, 0.5], [None, None], [0.25, -0.25]]


def test_with_every_prompt_filtered_the_experience_is_empty_and_metrics_are_reported() -> None:
    found = collector(lambda _: ["0", "0"], FILTER).collect(1)
    assert (len(found.experience), found.experience.lengths) == (0, [])
    assert len(found.experience.prompts) == len(found.experience.examples) == 1
    assert found.metrics["groups/kept"] == 0
    assert len(found.rollouts) == 4


def test_dynamic_sampling_refills_and_cuts_to_the_batch_in_the_order_of_drawing() -> None:
    sampling = PartConfig(name="dynamic_sampling", max_rounds=5)
    script = in_turn("0 1", "1 1", "0 0", "1 0", "0 1", "1 0", "1 1", "0 1")
    found = collector(script, sampling).collect(1)
    order = drawn(8)
    assert found.experience.examples == [order[0], order[3], order[4], order[5]]
    assert found.metrics["groups/rounds"] == 2
    assert found.metrics["groups/kept"] == 5 / 8
    assert found.metrics["tokens/sampled"] == 8 * 3


def test_dynamic_sampling_ends_after_its_rounds_with_the_prompts_kept_so_far() -> None:
    sampling = PartConfig(name="dynamic_sampling", max_rounds=3)
    only = drawn(9)[8]
    found = collector(lambda index: ["0", "1"] if index == only else ["1", "1"], sampling).collect(1)
    assert found.metrics["groups/rounds"] == 3
    assert found.experience.examples == [only]


def test_unscored_completions_leave_advantages_averages_and_the_update_and_are_counted() -> None:
    found = collector(in_turn("0 1 ?", "1 1 1", "! ? 1", "0.5 0 1"), completions=3).collect(1)
    # The group mean is over what was scored: 1/2 in the first group, 1 in the third.
    assert found.experience.advantages.tolist() == pytest.approx([-0.5, 0.5, 0, 0, 0, 0, 0, -0.5, 0.5])
    assert found.experience.lengths[0].tolist() == [1, 2, 1, 2, 3, 3, 1, 2, 3]
    assert found.metrics["reward/mean"] == pytest.approx(6.5 / 9)
    assert found.metrics["reward/unscored"] == pytest.approx(3 / 12)
    assert found.metrics["reward/failed"] == pytest.approx(1 / 12)
    assert found.metrics["completion/truncated"] == pytest.approx(1 / 3)


def test_an_unscorable_prompt_takes_no_place_in_a_mini_batch() -> None:
    found = collector(in_turn("? ?", "0 1", "? ?", "1 0"), mini_batch_prompts=1).collect(1)
    assert found.metrics["groups/kept"] == 0.5
    assert [len(part) for part in found.experience.lengths] == [2, 2]
    assert found.experience.mini_batch.tolist() == [0, 0, 1, 1]


def test_with_no_score_at_all_averages_are_not_numbers_and_nothing_is_learned() -> None:
    found = collector(lambda _: ["?", "!"]).collect(1)
    assert math.isnan(found.metrics["reward/mean"])
    assert math.isnan(found.metrics["accuracy/train"])
    assert found.metrics["reward/unscored"] == 1
    assert found.experience.lengths == []


def together(make: Callable[[Accelerator], Collector], workers: int) -> list[Collected]:
    barrier, board = threading.Barrier(workers), [None] * workers
    processes = [Accelerator(rank, workers) for rank in range(workers)]
    for process in processes:
        process.barrier, process.board = barrier, board
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda process: make(process).collect(2), processes))


def test_two_processes_collect_the_experience_of_one() -> None:
    selection = PartConfig(name="dynamic_sampling", max_rounds=4)

    def make(process: Accelerator) -> Collector:
        def script(index: int) -> list[str]:
            return [str((index * (k + 3)) % 5 / 4) if index % 3 else "1" for k in range(3)]

        return collector(script, selection, prompts=6, completions=3, mini_batch_prompts=4, process=process)

    def table(found: Collected) -> set[tuple[Any, ...]]:
        rows = found.experience
        owners = [rows.examples[p] for p in rows.prompt_of.tolist()]
        values = zip(
            owners, rows.mask.sum(1).tolist(), rows.advantages.tolist(), rows.mini_batch.tolist(), strict=True
        )
        return set(values)

    alone = make(Accelerator()).collect(2)
    left, right = together(make, 2)
    assert table(left) | table(right) == table(alone)
    assert len(left.experience) + len(right.experience) == len(alone.experience) == 18
    for half in (left, right):
        clocks = ("seconds/reward", "seconds/rollout")
        assert {**half.metrics, **dict.fromkeys(clocks)} == {**alone.metrics, **dict.fromkeys(clocks)}
        assert [part.tolist() for part in half.experience.lengths] == [
            part.tolist() for part in alone.experience.lengths
        ]


def test_every_completion_has_a_seed_of_its_own_and_a_new_one_in_each_iteration() -> None:
    first, second = collector(lambda _: ["0", "1"]), collector(lambda _: ["0", "1"])
    first.collect(1)
    second.collect(2)
    seeds = [
        seed
        for one in (first, second)
        for group in one.engine.seeds.values()  # type: ignore[attr-defined]
        for seed in group
    ]
    assert len(set(seeds)) == 16


def test_prompts_that_cannot_be_distributed_evenly_are_a_user_error() -> None:
    with pytest.raises(UserError, match=r"rollout\.prompts=4 must be a multiple of the 3 processes"):
        collector(lambda _: ["0", "1"], process=Accelerator(0, 3))


def test_between_two_batches_the_collector_can_be_stopped() -> None:
    made = collector(lambda _: ["0", "1"], batch_prompts=1)
    asked: list[int] = []

    def after_two() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Interrupted):
        made.collect(1, after_two)
    assert made.engine.calls == [1, 1]  # type: ignore[attr-defined]
