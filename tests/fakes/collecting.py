"""Collectors whose engine answers as scripted, on one process or on several, which are threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from data import Example, PromptSampler
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import AlgorithmConfig, PartConfig
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.rollout import Completion, Group, Sampling
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Collected
from rewards import RewardSum, Status, Verdict
from rewards.registry import rule


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
        self.copies = False

    def answers(self, index: int, seeds: Sequence[int]) -> Sequence[str]:
        """The script's answers; with ``copies`` as many as seeds, from the start again."""
        script = self.script(index)
        return [script[k % len(script)] for k in range(len(seeds))] if self.copies else script

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
                for k, text in enumerate(self.answers(i, own))
            ]
            for i, own in zip(ids, seeds, strict=True)
        ]


def collector(
    script: Callable[[int], Sequence[str]],
    *selection: PartConfig,
    prompts: int = 4,
    completions: int = 2,
    mini_batch_prompts: int = 4,
    batch_prompts: int = 8,
    process: Accelerator | None = None,
    **parts: Any,
) -> Collector:
    accelerator: Any = process or Accelerator()
    policy: Any = Policy()
    sections: dict[str, Any] = {
        "advantage": PartConfig(name="group_mean"),
        "surrogate": PartConfig(name="policy_gradient"),
        "aggregation": PartConfig(name="token_mean"),
        "selection": list(selection),
    }
    config = AlgorithmConfig(**{**sections, **parts})
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


def together(make: Callable[[Accelerator], Collector], workers: int) -> list[Collected]:
    barrier, board = threading.Barrier(workers), [None] * workers
    processes = [Accelerator(rank, workers) for rank in range(workers)]
    for process in processes:
        process.barrier, process.board = barrier, board
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda process: make(process).collect(2), processes))
