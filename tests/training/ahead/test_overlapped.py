"""Batches sampled in a thread during the update, in whole runs on an engine with weights of its own."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data import PromptSampler
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.guard.guard import Review
from mm_cpgd.guard.rollback import RollbackController
from mm_cpgd.interrupt import never
from mm_cpgd.training.ahead import overlapped
from mm_cpgd.training.ahead.overlapped import OverlappedBatches
from mm_cpgd.training.ahead.source import AheadSource
from mm_cpgd.training.experience import Collected, Experience
from mm_cpgd.training.optimizer import OptimizerStep
from mm_cpgd.training.rollouts import sampling
from rewards import RuleError
from tests.fakes import training_runs as trainer_jobs
from tests.fakes.overlap import (
    AS_VLLM,
    CopyEngine,
    use_copy_engine,
    use_engine_that_fails_on_the_second_process,
)
from tests.paths import ROOT

Rows = Callable[[Path], list[dict[str, Any]]]
Engine = type[CopyEngine]
AHEAD = (*AS_VLLM, "rollout.ahead=1", "tracking.rollouts_every=1")
NO_EVALUATION = "data.eval=null"
STALENESS = "rollout/staleness"


def ages(rows: list[dict[str, Any]]) -> list[float]:
    return [row[STALENESS] for row in rows if row["iteration"]]


def prompts(run: Path) -> list[list[str]]:
    """Return the prompts of each iteration."""
    files = sorted((run / "rollouts").glob("*.jsonl"))
    return [sorted(json.loads(line)["id"] for line in file.read_text().splitlines()) for file in files]


@pytest.fixture
def expected_prompts(yaml: Path, tmp_path: Path) -> list[list[str]]:
    """Prompts of three iterations that sample one after the other."""
    run = tmp_path / "plain"
    trainer_jobs.run(yaml, [NO_EVALUATION, "tracking.rollouts_every=1", f"output={run}"])
    return prompts(run)


@pytest.mark.parametrize("ahead", [1, 2])
def test_sampling_during_the_update_gives_the_results_of_sampling_before_it(
    yaml: Path, tmp_path: Path, copy_engine: Engine, read_rows: Rows, ahead: int
) -> None:
    options = [f"rollout.ahead={ahead}", "evaluation.every=1", "rollout.temperature=1.3"]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'local'}"], overwrite=True)
    trainer_jobs.run(yaml, [*AS_VLLM, *options])
    calls = copy_engine.newest.calls
    # Two batches of prompts for each of the iterations 2 and 3.
    assert [name for name, _ in calls if name == "ahead"] == ["ahead"] * 4
    assert copy_engine.newest.loads == 4 + 1 + (2 if ahead == 1 else 1)
    local, overlapped = (read_rows(tmp_path / name) for name in ("local", "run"))
    assert ages(overlapped) == ages(local) == ([0, 1, 1] if ahead == 1 else [0, 1, 2])
    for one, other in zip(overlapped, local, strict=True):
        shared = {name: value for name, value in one.items() if "logprob" not in name}
        assert shared == pytest.approx({name: other[name] for name in shared}, rel=1e-3, abs=1e-5)


def test_conversations_held_during_the_update_are_those_held_before_it(
    yaml: Path, tmp_path: Path, copy_engine: Engine, read_rows: Rows
) -> None:
    environment = f"{ROOT}/tests/fakes/environments.py:Looking"
    options = ["rollout.ahead=1", "evaluation.every=1", f"rollout.environment.name={environment}"]
    options.append("rollout.environment.scores={seen: 1.0}")
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'local'}"])
    trainer_jobs.run(yaml, [*AS_VLLM, *options])
    assert [name for name, _ in copy_engine.newest.calls if name == "ahead"] == ["ahead"] * 4
    local, overlapped = (read_rows(tmp_path / name) for name in ("local", "run"))
    assert ages(overlapped) == ages(local) == [0, 1, 1]
    assert all(row["conversation/turns"] > 1 for row in overlapped if row["iteration"])
    for one, other in zip(overlapped, local, strict=True):
        shared = {name: value for name, value in one.items() if "logprob" not in name}
        assert shared == pytest.approx({name: other[name] for name in shared}, rel=1e-3, abs=1e-5)


def test_held_out_evaluation_waits_for_the_batch_and_uses_the_present_weights(
    yaml: Path, copy_engine: Engine
) -> None:
    copy_engine.seconds = 0.2
    trainer_jobs.run(yaml, [*AHEAD, "evaluation.every=1", "evaluation.batch_prompts=2"])
    # Evaluations before training and after each of three iterations, the first iteration's batch, and what is
    # compared before the other two begin.
    here = [is_current for name, is_current in copy_engine.newest.calls if name == "MainThread"]
    assert here == [True] * (4 * 2 + 2 + 2)


class WaitingCollector:
    """Samples by waiting; no model is run."""

    accelerator: Any = SimpleNamespace(device=torch.device("cpu"), gather=lambda value: value)
    config: Any = SimpleNamespace(prompts=2)
    engine: Any = SimpleNamespace(load_weights=lambda policy: None)
    prefetcher: Any = SimpleNamespace(in_processes=False)
    policy, prefetch_until = None, 0

    def __init__(self, seconds: float) -> None:
        self.sampler = PromptSampler(100, 0)
        self.seconds = seconds

    def sample(
        self, drawn: Sequence[int], iteration: int, should_stop: Any = never, following: Any = ()
    ) -> Any:
        time.sleep(self.seconds)
        return SimpleNamespace(prompts=drawn)

    def collect(self, iteration: int, should_stop: Any = never, sampled: Any = None) -> Collected:
        drawn = self.sampler.take(2)
        sampled = sampled or self.sample(drawn, iteration)
        assert sampled.prompts == drawn
        nothing = torch.zeros(0)
        experience = Experience([], [], nothing, nothing, nothing, nothing, nothing, [])
        experience.sampled_logprobs = nothing
        return Collected(experience, {"seconds/reward": 0.0})

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("ahead", "sampling", "update"), [(1, 0.8, 0.8), (2, 0.8, 0.8), (1, 0.8, 0.4), (1, 0.4, 0.8)]
)
def test_an_iteration_takes_the_longer_of_sampling_and_update_and_not_their_sum(
    monkeypatch: pytest.MonkeyPatch, ahead: int, sampling: float, update: float
) -> None:
    monkeypatch.setattr(overlapped, "probe", lambda *_: None)
    made: Any = WaitingCollector(sampling)
    source = AheadSource(made, OverlappedBatches(made, lambda *_: {}), ahead, iterations=8)
    ends = []
    for iteration in range(1, 8):
        source.collect(iteration)
        time.sleep(update)
        ends.append(time.perf_counter())
    source.close()
    # Of two iterations each: with two batches begun together, one waits for both. The median: a busy machine
    # delays some of them.
    seconds = median((end - start) / 2 for start, end in zip(ends, ends[2:], strict=False))
    assert seconds < 0.85 * (sampling + update)
    assert seconds > 0.9 * max(sampling, update)


@pytest.mark.parametrize("call", [2, 6, 10])
def test_a_stopped_run_resumes_with_the_prompts_that_were_in_flight(
    yaml: Path,
    tmp_path: Path,
    copy_engine: Engine,
    read_rows: Rows,
    expected_prompts: list[list[str]],
    call: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OptimizerStep, "__call__", OptimizerStep.__call__)  # undone at the end
        trainer_jobs.at_call(OptimizerStep, "__call__", call, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunEnded, match="--resume") as caught:
            trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION])
    assert caught.value.exit_code == 143
    trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION], resume=True)
    assert prompts(tmp_path / "run") == expected_prompts
    # The batch in flight is sampled again, by the weights of the resumed run.
    assert ages(read_rows(tmp_path / "run")) == {2: [0, 0, 1], 6: [0, 1, 0], 10: [0, 1, 1]}[call]


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_prompts_that_were_in_flight(
    yaml: Path, tmp_path: Path, copy_engine: Engine, expected_prompts: list[list[str]]
) -> None:
    assert trainer_jobs.in_child(yaml, [*AHEAD, NO_EVALUATION], die_in_second_update) == -signal.SIGKILL
    trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION], resume=True)
    assert prompts(tmp_path / "run") == expected_prompts


def die_in_second_update() -> None:
    use_copy_engine()
    trainer_jobs.at_call(OptimizerStep, "__call__", 6, trainer_jobs.die)


def test_a_stop_while_the_run_waits_for_completions_ends_before_the_next_prompts(
    yaml: Path, copy_engine: Engine
) -> None:
    def stop_in_the_background(number: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.5)

    copy_engine.before = staticmethod(stop_in_the_background)
    started = time.monotonic()
    with pytest.raises(RunEnded, match="stopped after iteration"):
        trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION])
    assert [name for name, _ in copy_engine.newest.calls].count("ahead") == 1
    assert time.monotonic() - started < 60


def test_a_rollback_drops_what_the_rolled_back_weights_sampled(
    yaml: Path,
    tmp_path: Path,
    copy_engine: Engine,
    read_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    expected_prompts: list[list[str]],
) -> None:
    def roll_back_once(self: RollbackController, iteration: int, *_: Any) -> Review:
        if iteration == 1:
            self._roll_back(0.5)
        return Review(roll_back=iteration == 1)

    monkeypatch.setattr(RollbackController, "review", roll_back_once)
    trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION, "guard.action=rollback"])
    assert ages(read_rows(tmp_path / "run")) == [0, 0, 1]
    assert prompts(tmp_path / "run") == expected_prompts


def test_weights_that_do_not_arrive_end_the_run_before_anything_is_learned_from_their_samples(
    yaml: Path,
    tmp_path: Path,
    copy_engine: Engine,
    read_rows: Rows,
    expected_prompts: list[list[str]],
) -> None:
    options = [*AHEAD, NO_EVALUATION, "rollout.vllm.max_difference=1e-4"]
    copy_engine.deaf_after = 2  # those of iteration 1's batch, and of the one that begins with its update
    with pytest.raises(
        RunEnded, match=r"iteration 2: the log-probabilities of vLLM and of the trainer differ"
    ):
        trainer_jobs.run(yaml, options)
    (row,) = read_rows(tmp_path / "run")
    assert row["rollout/logprob_difference_max"] < 1e-4
    assert {one.name for one in (tmp_path / "run" / "checkpoints").iterdir()} == {"step-1"}
    copy_engine.deaf_after = 1_000
    trainer_jobs.run(yaml, options, resume=True)
    rows = read_rows(tmp_path / "run")
    assert ages(rows) == [0, 0, 1]
    assert all(row["rollout/logprob_difference_max"] < 1e-4 for row in rows)
    assert prompts(tmp_path / "run") == expected_prompts


def test_a_difference_in_the_first_iteration_is_said_to_be_of_the_start(
    yaml: Path, copy_engine: Engine
) -> None:
    options = [*AHEAD, NO_EVALUATION, "rollout.vllm.max_difference=1e-30"]
    with pytest.raises(RunEnded, match=r"iteration 1: .* It is the first batch of the run; "):
        trainer_jobs.run(yaml, options)


ERRORS = [UserError("another template"), RunEnded("the server is gone"), KeyError("a bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_the_background_ends_the_run_as_it_is(
    yaml: Path, copy_engine: Engine, error: Exception
) -> None:
    def fail(number: int) -> None:
        if number == 3:
            raise error

    copy_engine.before = staticmethod(fail)
    with pytest.raises(type(error)) as caught:
        trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION])
    assert caught.value is error


def test_a_rule_that_fails_in_the_background_leaves_a_checkpoint(
    yaml: Path, tmp_path: Path, copy_engine: Engine
) -> None:
    (tmp_path / "broken.py").write_text(
        "import threading\n"
        "def broken(completion, example):\n"
        "    calls = broken.__dict__.setdefault('calls', [])\n"
        "    calls.append(1)\n"
        "    if len(calls) > 20: raise ValueError('the judge is down')\n"
        "    return len(completion) / 100\n"
    )
    rule = f"rewards=[{{rule: '{tmp_path}/broken.py:broken', timeout: null, on_error: stop}}]"
    with pytest.raises(RuleError, match="the judge is down"):
        trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION, rule, "checkpoint.every=0"])
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]


def test_rows_that_vanish_in_the_background_end_the_run_with_a_checkpoint(
    yaml: Path, tmp_path: Path, copy_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = sampling.encode_rows

    def vanished(encoder: Any, examples: Any, pending: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return encode(encoder, examples, pending)
        return [None] * len(examples), ["the file is gone"] * len(examples)

    monkeypatch.setattr(sampling, "encode_rows", vanished)
    with pytest.raises(RunEnded, match=r"iteration 2: none of the 4 rows .* the file is gone.*--resume"):
        trainer_jobs.run(yaml, [*AHEAD, NO_EVALUATION])
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]


@pytest.mark.slow
def test_two_processes_give_the_trajectory_of_one(
    yaml: Path, tmp_path: Path, copy_engine: Engine, read_rows: Rows
) -> None:
    options = [*AHEAD, "evaluation.every=1", "rollout.ahead=2", "training.iterations=4"]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, options, use_copy_engine) == [0, 0]
    one, two = (read_rows(tmp_path / name) for name in ("one", "run"))
    assert ages(two) == [0, 1, 2, 1]
    for row, expected in zip(two, one, strict=True):
        assert row == pytest.approx(expected, rel=5e-6, abs=1e-5)


@pytest.mark.slow
def test_an_engine_that_fails_on_one_process_ends_both(yaml: Path, tmp_path: Path) -> None:
    options = [*AHEAD, NO_EVALUATION]
    ended = trainer_jobs.in_two_processes(yaml, options, use_engine_that_fails_on_the_second_process)
    assert ended == [1, 1]
    assert "the engine is gone" in (tmp_path / "stderr-0").read_text()
    assert "Traceback" not in (tmp_path / "stderr-0").read_text()
