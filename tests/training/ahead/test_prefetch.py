"""Scores while the next prompts generate, prompts while the policy learns: nothing else changes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from data import Example, PromptSampler
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import AlgorithmConfig, PartConfig
from mm_cpgd.errors import RunEnded
from mm_cpgd.interrupt import Interrupted
from mm_cpgd.policy import EncodedPrompt, PromptEncoder
from mm_cpgd.rollout import Completion, Group, Sampling
from mm_cpgd.training.ahead.prefetch import PromptPrefetcher
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.optimizer import OptimizerStep
from mm_cpgd.training.setup import _prefetches
from rewards import Component, RewardSum, RuleError
from rewards.registry import rule
from tests.fakes import training_runs as trainer_jobs

LIMIT = 10  # seconds; a test that waits so long has failed
NO_EVALUATION = ("evaluation.before=false", "evaluation.after=false")


class Gate:
    """Events shared by the rule and the engine of a test."""

    def __init__(self) -> None:
        self.scoring = threading.Event()
        self.open = threading.Event()
        self.scored: list[str] = []


GATE = Gate()


@rule("overlap_test_gate")
def gated(completion: str, example: Example) -> float:
    """Wait for the gate; ``bad`` fails."""
    GATE.scoring.set()
    assert GATE.open.wait(LIMIT)
    GATE.scored.append(completion)
    if completion.startswith("bad"):
        raise ValueError("no such answer")
    return float(len(completion))


@pytest.fixture(autouse=True)
def _closed_gate() -> Iterator[None]:
    GATE.__init__()  # type: ignore[misc]
    yield
    GATE.open.set()


class Machine:
    """Accelerator, policy and encoder of one process: an example's prompt is its number."""

    device = torch.device("cpu")
    process_index, num_processes, is_main_process = 0, 1, True

    def __init__(self) -> None:
        self.encoder = self
        self.encoded: list[tuple[int, str]] = []
        self.fails_at: int | None = None

    def autocast(self) -> Any:
        return contextlib.nullcontext()

    def gather(self, mine: Any) -> Any:
        return mine

    def encode(self, example: Example) -> EncodedPrompt:
        number, thread = int(example.id), threading.current_thread().name
        self.encoded.append((number, thread.rsplit("_", 1)[0]))
        if number == self.fails_at and thread != "MainThread":
            raise OSError("the disk is away for a moment")
        return EncodedPrompt(torch.tensor([number]), torch.zeros(1, 1, dtype=torch.long))


class Engine:
    """Answers ``a`` and ``bb``, or as scripted; ``before`` is called with the number of each batch from 0."""

    def __init__(self, before: Callable[[int], None], answers: Sequence[str] = ("a", "bb")) -> None:
        self.before, self.answers, self.batches = before, answers, 0

    def load_weights(self, policy: Any) -> None:
        pass

    def release(self) -> None:
        pass

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        self.before(self.batches)
        self.batches += 1
        ids = [int(prompt.input_ids[0]) for prompt in prompts]
        one = torch.ones(1, dtype=torch.long)
        return [
            [Completion(one, torch.zeros(1), f"{text}{i}", finished=True) for text in self.answers]
            for i in ids
        ]


def collector(
    before: Callable[[int], None] = lambda _: None,
    *,
    on_error: Any = "skip",
    answers: Sequence[str] = ("a", "bb"),
    batch_prompts: int = 2,
    prefetch_until: int = 0,
    machine: Any = None,
) -> Collector:
    machine = machine or Machine()
    parts = [PartConfig(name=name) for name in ("group_mean", "policy_gradient", "token_mean")]
    config = AlgorithmConfig(advantage=parts[0], surrogate=parts[1], aggregation=parts[2])
    return Collector(
        RolloutConfig(prompts=4, completions=2, max_new_tokens=8, batch_prompts=batch_prompts),
        machine,
        machine,
        Engine(before, answers),
        RewardSum([Component("overlap_test_gate", on_error=on_error)]),
        build_objective(config, completions=2, max_new_tokens=8),
        [Example(str(i), "?", "0") for i in range(40)],
        PromptSampler(40, 0),
        mini_batch_prompts=4,
        seed=7,
        prefetch_until=prefetch_until,
    )


def own_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("scores", "prompt-prefetcher", "rewards"))]


def test_completions_are_scored_while_the_next_prompts_generate() -> None:
    def second_batch_opens_the_gate(batch: int) -> None:
        if batch == 1:
            assert GATE.scoring.wait(LIMIT), "the first batch is not scored before the second is sampled"
            GATE.open.set()

    found = collector(second_batch_opens_the_gate).collect(1)
    assert len(GATE.scored) == 8
    assert own_threads() == []
    assert found.metrics["reward/mean"] > 0


@pytest.mark.parametrize("batch_prompts", [1, 3])
def test_scores_of_batches_are_the_scores_of_all_at_once(batch_prompts: int) -> None:
    GATE.open.set()
    whole, parts = collector(batch_prompts=4).collect(1), collector(batch_prompts=batch_prompts).collect(1)
    assert parts.rollouts == whole.rollouts
    assert parts.experience.advantages.tolist() == whole.experience.advantages.tolist()
    assert [c.total for c in whole.rollouts[0].completions] == [
        float(len(c.text)) for c in whole.rollouts[0].completions
    ]


def test_the_time_of_rewards_is_the_wait_after_the_last_completion() -> None:
    def opened_late(batch: int) -> None:
        if batch == 1:
            time.sleep(0.4)
            GATE.open.set()

    found = collector(opened_late).collect(1)
    assert found.metrics["seconds/reward"] < 0.2
    assert found.metrics["seconds/rollout"] >= 0.4


def test_with_one_batch_the_time_of_rewards_is_all_that_scoring_took() -> None:
    threading.Timer(0.4, GATE.open.set).start()
    assert collector(batch_prompts=4).collect(1).metrics["seconds/reward"] > 0.2


def test_a_rule_that_fails_in_an_early_batch_ends_the_run_with_on_error_stop() -> None:
    GATE.open.set()
    with pytest.raises(RuleError, match=r"failed on example .*no such answer"):
        collector(on_error="stop", answers=("bad", "good")).collect(1)
    assert own_threads() == []


def test_a_rule_that_fails_in_an_early_batch_leaves_its_completions_out() -> None:
    GATE.open.set()
    assert collector(answers=("bad", "good")).collect(1).metrics["reward/failed"] == 0.5


def test_a_stop_between_two_batches_leaves_no_thread_and_no_further_scoring() -> None:
    asked: list[int] = []

    def at_the_third() -> bool:
        asked.append(1)
        if len(asked) == 3:
            assert GATE.scoring.wait(LIMIT)
            # From now on the second batch waits for the first: it must be dropped, not scored.
            threading.Timer(0.1, GATE.open.set).start()
        return len(asked) == 3

    with pytest.raises(Interrupted):
        collector(batch_prompts=1).collect(1, at_the_third)
    assert own_threads() == []
    assert len(GATE.scored) == 2


def test_prompts_are_prefetched_once_and_only_those_of_the_next_iteration() -> None:
    GATE.open.set()
    made = collector(prefetch_until=2)
    made.collect(1)
    made.prefetcher.wait()
    assert made.policy.encoded[4:] == [(i, "prompt-prefetcher") for i in PromptSampler(40, 0).take(8)[4:]]  # type: ignore[attr-defined]
    found = made.collect(2)
    assert len(made.policy.encoded) == 8  # type: ignore[attr-defined]
    assert found.experience.examples == PromptSampler(40, 0).take(8)[4:]
    assert own_threads() == []


def test_prompts_that_were_not_prefetched_are_encoded_on_demand() -> None:
    GATE.open.set()
    made, straight = collector(prefetch_until=9), collector()
    before = made.sampler.state_dict()
    first = made.collect(1)
    made.sampler.load_state_dict(before)  # an iteration that is undone, as a resumed run does
    again, plain = made.collect(1), straight.collect(1)
    made.close()
    assert again.rollouts == plain.rollouts == first.rollouts
    assert [int(prompt.input_ids[0]) for prompt in again.experience.prompts] == again.experience.examples


def test_a_prompt_that_fails_in_prefetching_is_encoded_again_when_it_is_needed() -> None:
    GATE.open.set()
    machine = Machine()
    machine.fails_at = PromptSampler(40, 0).take(8)[5]
    made, straight = collector(prefetch_until=2, machine=machine), collector()
    found = [made.collect(number).rollouts for number in (1, 2)]
    assert found == [straight.collect(number).rollouts for number in (1, 2)]


def test_dropped_prompts_leave_no_thread_and_no_further_encoding() -> None:
    started, resume, done = threading.Event(), threading.Event(), []

    def encode(index: int) -> EncodedPrompt:
        started.set()
        assert resume.wait(LIMIT)
        done.append(index)
        return EncodedPrompt(torch.tensor([index]), torch.zeros(1, 1, dtype=torch.long))

    ahead = PromptPrefetcher(encode)
    ahead.begin([1, 2, 3])
    assert started.wait(LIMIT)
    threading.Timer(0.1, resume.set).start()
    ahead.drop()
    assert done == [1]
    assert own_threads() == []
    assert ahead.take([1, 2, 3]) is None


@pytest.mark.parametrize(("chosen", "device", "expected"), [
    (None, "cpu", False), (None, "cuda", True), (True, "cpu", True), (False, "cuda", False),
])  # fmt: skip
def test_without_a_setting_only_a_run_with_an_accelerator_prefetches(
    chosen: bool | None, device: str, expected: bool
) -> None:
    config, accelerator = Machine(), Machine()
    config.rollout = config  # type: ignore[attr-defined]
    config.prefetch, config.ahead = chosen, 0  # type: ignore[attr-defined]
    accelerator.device = torch.device(device)
    assert _prefetches(config, accelerator, None) is expected  # type: ignore[arg-type]


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread of every encoding of a prompt, in order."""
    threads: list[str] = []
    encode = PromptEncoder.encode

    def noted(self: PromptEncoder, example: Example) -> EncodedPrompt:
        threads.append(threading.current_thread().name.rsplit("_", 1)[0])
        return encode(self, example)

    monkeypatch.setattr(PromptEncoder, "encode", noted)
    return threads


def results(run: Path) -> dict[str, bytes]:
    files = [*(run / "rollouts").glob("*.jsonl"), run / "final" / "model.safetensors"]
    return {file.name: file.read_bytes() for file in files}


def test_a_run_with_prefetching_equals_the_run_without(
    yaml: Path, tmp_path: Path, read_rows: Callable[[Path], Any], encodings: list[str]
) -> None:
    runs = {switch: tmp_path / switch for switch in ("false", "true")}
    for switch, run in runs.items():
        encodings.clear()
        trainer_jobs.run(yaml, [f"rollout.prefetch={switch}", f"output={run}", "evaluation.every=1"])
        # Four prompts in each of three iterations; those of the last two can be made ready.
        assert encodings.count("prompt-prefetcher") == (8 if switch == "true" else 0)
    assert read_rows(runs["true"]) == read_rows(runs["false"])
    assert results(runs["true"]) == results(runs["false"])


def test_a_resumed_run_starts_without_prefetched_prompts_and_equals_the_uninterrupted_one(
    yaml: Path, tmp_path: Path, read_rows: Callable[[Path], Any], encodings: list[str]
) -> None:
    options = [*NO_EVALUATION, "rollout.prefetch=true"]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'straight'}"])
    stopped = OptimizerStep.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OptimizerStep, "__call__", stopped)  # undone at the end
        trainer_jobs.at_call(OptimizerStep, "__call__", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunEnded):
            trainer_jobs.run(yaml, options)
    assert own_threads() == []
    encodings.clear()
    trainer_jobs.run(yaml, options, resume=True)
    # Stopped in the second update: its prompts are encoded again, the third iteration's as they come; and
    # one on trial when the model is loaded.
    assert encodings == ["MainThread"] * 9
    assert read_rows(tmp_path / "run") == read_rows(tmp_path / "straight")
    assert results(tmp_path / "run") == results(tmp_path / "straight")


def test_a_stopped_run_does_not_prefetch_to_the_end(
    yaml: Path, monkeypatch: pytest.MonkeyPatch, encodings: list[str]
) -> None:
    encode = PromptEncoder.encode

    def slow(self: PromptEncoder, example: Example) -> EncodedPrompt:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.5)
        return encode(self, example)

    monkeypatch.setattr(PromptEncoder, "encode", slow)
    monkeypatch.setattr(OptimizerStep, "__call__", OptimizerStep.__call__)  # undone at the end
    trainer_jobs.at_call(OptimizerStep, "__call__", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunEnded):
        trainer_jobs.run(yaml, [*NO_EVALUATION, "rollout.prefetch=true"])
    assert own_threads() == []
    assert encodings.count("prompt-prefetcher") < 4
