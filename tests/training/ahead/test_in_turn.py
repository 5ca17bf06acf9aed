"""Batches sampled before the update by the policy itself: old log-probabilities, prompts, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data import PromptSampler
from mm_cpgd.interrupt import Interrupted, never
from mm_cpgd.training.ahead.in_turn import BatchesInTurn
from mm_cpgd.training.experience import Collected, Experience, RowsLost
from mm_cpgd.training.learner import Learner
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
NO_EVALUATION = "data.eval=null"


class Collector:
    """Draws two prompts for each iteration; fails as told."""

    def __init__(self, **errors: Exception) -> None:
        self.sampler = PromptSampler(20, 0)
        self.errors = errors
        self.drawn: dict[int, list[int]] = {}

    def collect(self, iteration: int, should_stop: Any = never) -> Collected:
        self.drawn[iteration] = self.sampler.take(2)
        if error := self.errors.get(f"at_{iteration}"):
            raise error
        nothing = torch.zeros(0)
        experience = Experience([], [], nothing, nothing, nothing, nothing, nothing, [])
        return Collected(experience, {"seconds/reward": 0.25})


def batches(**errors: Exception) -> tuple[BatchesInTurn, Collector, list[int]]:
    made, prepared = Collector(**errors), []
    collector: Any = made
    return BatchesInTurn(collector, lambda _, iteration: prepared.append(iteration)), made, prepared


def test_prompts_count_as_drawn_when_their_batch_is_taken() -> None:
    held, collector, prepared = batches()
    assert held.begin([2, 3], never) == 0.5
    assert prepared == [2, 3]
    positions = [collector.sampler.position]
    for iteration in (2, 3):
        held.take(iteration, never)
        positions.append(collector.sampler.position)
    assert positions == [0, 2, 4]
    assert [collector.drawn[2], collector.drawn[3]] == [
        PromptSampler(20, 0).take(2),
        PromptSampler(20, 0).take(4)[2:],
    ]


def test_dropped_batches_leave_their_prompts_to_be_drawn() -> None:
    held, collector, _ = batches()
    held.begin([2, 3], never)
    held.take(2, never)
    held.discard()
    assert len(held) == 0
    assert collector.sampler.take(2) == collector.drawn[3]


def test_an_error_is_that_of_the_iteration_whose_batch_it_is() -> None:
    held, collector, _ = batches(at_3=RowsLost("all gone"))
    held.begin([2, 3, 4], never)
    held.take(2, never)
    with pytest.raises(RowsLost, match="all gone"):
        held.take(3, never)
    assert 4 not in held
    assert collector.sampler.position == 2


def test_an_interruption_keeps_what_is_complete() -> None:
    held, collector, _ = batches(at_3=Interrupted())
    held.begin([2, 3], never)
    assert (2 in held, 3 in held) == (True, False)
    assert collector.sampler.position == 0


@pytest.mark.parametrize("ahead", [1, 2])
def test_old_logprobs_are_those_of_the_policy_that_sampled(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    gaps: list[float] = []
    update = Learner.update

    def noted(self: Learner, experience: Experience, iteration: int, done: int = 0) -> Any:
        if experience.old_logprobs is not None and not experience.old_logprobs.isnan().any():
            with torch.no_grad():
                now = self._evaluate(experience, self.wrapped, range(len(experience.lengths)))[0]
            assert experience.sampled_logprobs is not None
            mask = experience.mask
            gaps.append(float((experience.old_logprobs - experience.sampled_logprobs)[mask].abs().max()))
            gaps.append(float((now - experience.old_logprobs)[mask].abs().max()))
        return update(self, experience, iteration, done)

    monkeypatch.setattr(Learner, "update", noted)
    # With this, the local engine's own log-probabilities are kept, to be compared with the trainer's.
    options = ["rollout.cuts=reweight", "rollout.top_k=1000000", f"rollout.ahead={ahead}"]
    trainer_jobs.run(yaml, [*options, NO_EVALUATION, "training.iterations=4"])
    ages = [row["rollout/staleness"] for row in read_rows(tmp_path / "run")]
    assert ages == ([0, 1, 1, 1] if ahead == 1 else [0, 1, 2, 1])
    by_sampler, by_present = gaps[::2], gaps[1::2]
    assert len(by_sampler) == 3
    assert max(by_sampler) < 1e-4
    assert min(by_present) > 1e-3


FORKING = "algorithm={recipe: cpgd_forking}"
DYNAMIC = "algorithm.selection=[{name: dynamic_sampling, max_rounds: 3, on: rewards}]"
CURRICULUM = "algorithm.prompts={name: variance_aware}"
CUTS = "rollout.top_p=0.9"


@pytest.mark.parametrize("option", [FORKING, DYNAMIC, CURRICULUM, CUTS])
def test_the_local_engine_may_sample_ahead_with_every_part(
    yaml: Path, tmp_path: Path, read_rows: Rows, option: str
) -> None:
    trainer_jobs.run(yaml, [NO_EVALUATION, "rollout.ahead=1", option])
    rows = read_rows(tmp_path / "run")
    assert [row["rollout/staleness"] for row in rows] == [0, 1, 1]
    assert all(row["optimizer/skipped"] == 0 for row in rows)


def prompts(run: Path) -> list[list[str]]:
    """Return the prompts of each iteration."""
    files = sorted((run / "rollouts").glob("*.jsonl"))
    return [sorted(json.loads(line)["id"] for line in file.read_text().splitlines()) for file in files]


def test_without_ahead_no_metric_is_added_and_with_it_the_prompts_are_the_same(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    runs = {ahead: tmp_path / f"ahead-{ahead}" for ahead in (0, 2)}
    for ahead, run in runs.items():
        options = [NO_EVALUATION, f"rollout.ahead={ahead}", f"output={run}", "tracking.rollouts_every=1"]
        trainer_jobs.run(yaml, options)
    here, there = (read_rows(run) for run in runs.values())
    assert {*there[0]} - {*here[0]} == {"rollout/staleness"}
    assert {**there[0], "rollout/staleness": None} == {**here[0], "rollout/staleness": None}
    assert there[1] != here[1]
    assert len(prompts(runs[0])) == 3
    assert prompts(runs[2]) == prompts(runs[0])
