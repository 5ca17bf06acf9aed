"""Held-out accuracy: what counts, in which groups, on how many processes."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from data import Example
from mm_cpgd.interrupt import Interrupted
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.rollout import Completion, Group, Sampling
from mm_cpgd.training.heldout import HeldOut, ScoredExample, summarise
from rewards import RewardSum, Status, Verdict
from rewards.registry import rule

ANSWERS = ["1", "0", "?", "0.5", "1", "1", "0"]


@rule("heldout_test_number")
def number(completion: str, example: Example) -> Verdict | float:
    """The completion is its own score; ``?`` cannot be scored."""
    return Verdict(None, Status.UNPARSABLE_GOLD) if completion == "?" else float(completion)


@rule("heldout_test_short")
def short(completion: str, example: Example) -> float:
    """Whether the completion has one letter."""
    return float(len(completion) == 1)


class Accelerator:
    def __init__(self, rank: int = 0, workers: int = 1) -> None:
        self.process_index, self.num_processes = rank, workers

    def autocast(self) -> Any:
        return contextlib.nullcontext()


class Policy:
    def __init__(self) -> None:
        self.encoder = self

    def encode(self, example: Example) -> EncodedPrompt:
        return EncodedPrompt(torch.tensor([int(example.id)]), torch.zeros(1, 1, dtype=torch.long))


class Engine:
    """Answers example i with ``ANSWERS[i]``, in i + 1 tokens; every third is cut off."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def release(self) -> None:
        pass

    def load_weights(self, policy: Any) -> None:
        pass

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        assert sampling.temperature == 0
        assert all(len(group) == 1 for group in seeds)
        self.calls.append(len(prompts))
        ids = [int(prompt.input_ids[0]) for prompt in prompts]
        return [
            [Completion(torch.zeros(i + 1), torch.zeros(i + 1), ANSWERS[i], finished=i % 3 != 2)] for i in ids
        ]


def held_out(rank: int = 0, workers: int = 1, batch: int = 2) -> tuple[HeldOut, Engine]:
    engine = Engine()
    kinds = ["clock", "chart", "clock", None, "chart", "clock", None]
    accelerator: Any = Accelerator(rank, workers)
    policy: Any = Policy()
    made = HeldOut(
        accelerator,
        policy,
        engine,
        RewardSum([("heldout_test_number", 1.0, {}), ("heldout_test_short", 0.5, {})]),
        [Example(str(i), "?", "0", meta={"kind": kind} if kind else {}) for i, kind in enumerate(kinds)],
        max_new_tokens=8,
        batch_prompts=batch,
    )
    return made, engine


def test_accuracy_is_the_mean_over_the_answers_that_could_be_scored() -> None:
    made, engine = held_out()
    found = made()
    assert found == pytest.approx(
        {
            "eval/accuracy": 3.5 / 6,
            "eval/heldout_test_short": 6 / 7,
            "eval/n": 6,
            "eval/unscored": 1,
            "eval/truncated": 2 / 7,
            "eval/length_mean": 4,
            "eval/accuracy/chart": 1 / 2,
            "eval/accuracy/clock": 1,
        }
    )
    assert engine.calls == [2, 2, 2, 1]


def test_two_processes_give_exactly_the_numbers_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = held_out()[0]()
    shares: list[list[ScoredExample]] = []

    def gather(mine: list[ScoredExample]) -> list[ScoredExample]:
        shares.append(mine)
        return mine

    monkeypatch.setattr("mm_cpgd.training.heldout.gather_object", gather)
    for rank in range(2):
        held_out(rank, 2)[0]()
    assert [len(share) for share in shares[::2]] == [4, 3]  # and the rows that were lost
    monkeypatch.setattr(
        "mm_cpgd.training.heldout.gather_object", lambda mine: shares[0] + shares[2] if mine else []
    )
    assert held_out(1, 2)[0]() == expected


def test_a_process_without_examples_checks_for_a_stop_equally_often() -> None:
    asked = []
    for rank in range(5):
        made, _ = held_out(rank, 5, batch=1)
        counter = itertools.count()
        made(lambda counter=counter: next(counter) < 0)  # type: ignore[misc]
        asked.append(next(counter))
    assert asked == [2] * 5


def test_an_evaluation_can_be_stopped_between_batches() -> None:
    made, engine = held_out()
    with pytest.raises(Interrupted):
        made(lambda: len(engine.calls) == 2)
    assert engine.calls == [2, 2]


def test_nothing_scored_has_no_accuracy() -> None:
    found = summarise([ScoredExample({"a": None}, True, 3)], ["a"])
    assert math.isnan(found["accuracy"])
    assert (found["n"], found["unscored"]) == (0, 1)


def test_no_answers_at_all_have_no_means() -> None:
    found = summarise([], ["a"])
    assert math.isnan(found["accuracy"])
    assert math.isnan(found["length_mean"])
    assert found["n"] == 0


def test_groups_are_named_by_kind_in_alphabetical_order() -> None:
    answered = [ScoredExample({"a": 1.0}, True, 1, kind) for kind in ("b", "a", "b")]
    assert [key for key in summarise(answered, ["a"]) if "/" in key] == ["accuracy/a", "accuracy/b"]


def test_the_accuracy_that_training_logs_is_the_one_that_mm_cpgd_eval_reports() -> None:
    """The same model, rows and prompts: the same completions, scored by the same verifier."""
    from data import load_examples
    from eval.benchmark import Benchmark, verified
    from eval.generate.decoding import Decoding
    from eval.generate.generate import generate_responses
    from eval.generate.local import LocalGenerator
    from eval.generate.questions import questions_of
    from eval.scoring.score import score_responses
    from eval.scoring.summary import summarise as summarise_result
    from mm_cpgd.rollout import LocalEngine

    rows = list(load_examples("generated:shapes", limit=10, seed=3).examples)
    generator = LocalGenerator("embedded:tiny", device="cpu")
    engine: Any = LocalEngine(generator.policy)
    accelerator: Any = Accelerator()
    logged = HeldOut(
        accelerator, generator.policy, engine, RewardSum([("accuracy", 1.0, {})]), rows,
        max_new_tokens=64, batch_prompts=4,
    )()  # fmt: skip
    benchmark = Benchmark("own", "", lambda source: rows, lambda row: row.question, verified)
    found = generate_responses(questions_of(benchmark, rows, None), generator, Decoding(64))
    scored = score_responses(benchmark, rows, found.responses, ["verifier"])
    reported = summarise_result(benchmark, scored)
    assert 0 < logged["eval/accuracy"] < 1
    assert reported["overall"]["accuracy"] == logged["eval/accuracy"]
    assert reported["overall"]["total"] == logged["eval/n"]
    assert reported["truncated"]["share"] == logged["eval/truncated"]
