"""The training loop: rollout, rewards, advantages, update, and what surrounds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from mm_cpgd.checkpoint import newest_checkpoint, save_checkpoint, step_of
from mm_cpgd.collection import Collected, Collector
from mm_cpgd.demonstrations import Demonstrator
from mm_cpgd.errors import RunEnded
from mm_cpgd.learning import Learner, average
from mm_cpgd.saving import TrainingState
from mm_cpgd.stopping import StopRequest
from mm_cpgd.tracking import MetricsLog, Progress, RolloutLog

# Greedy held-out evaluation of the policy as it is; the command line hands it in.
Evaluator = Callable[[], dict[str, float]]


class Trainer:
    """Runs the iterations of a run, from where its newest whole checkpoint stands.

    Args:
        accelerator: of the run.
        collector: first half of the step: prompts to experience; a demonstrator for supervised fine-tuning.
        learner: second half: experience to optimizer steps.
        state: everything that a checkpoint holds.
        folder: the run folder.
        evaluator: gives ``eval/accuracy`` and more, or None.
        metrics: written once an iteration.
        rollouts: what was asked, answered, rewarded and why.
        iterations: of the whole run.
        evaluate_every: iterations between evaluations, 0 for none on the way.
        save_every: iterations between checkpoints, 0 for one at the end.
        keep: checkpoints that stay beside the best.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        collector: Collector | Demonstrator,
        learner: Learner,
        state: TrainingState,
        folder: Path,
        evaluator: Evaluator | None,
        metrics: MetricsLog,
        rollouts: RolloutLog,
        *,
        iterations: int,
        evaluate_every: int,
        save_every: int,
        keep: int,
    ) -> None:
        self.accelerator = accelerator
        self.collector = collector
        self.learner = learner
        self.state = state
        self.folder = folder
        self.evaluator = evaluator
        self.metrics = metrics
        self.rollouts = rollouts
        self.iterations = iterations
        self.evaluate_every = evaluate_every
        self.save_every = save_every
        self.keep = keep

    def run(self, progress: Progress) -> None:
        """Train to the last iteration.

        Raises:
            RunEnded: a signal was caught (after a checkpoint), or steps were not finite too often in a row.
        """
        with StopRequest(self.accelerator) as stop:
            while self.state.iteration < self.iterations:
                self._iteration(progress, stop)
        if self.state.saved_iteration != self.state.iteration:
            self.save()

    def resume(self, warn: Callable[[str], None]) -> bool:
        """Take up the newest whole checkpoint and forget what was logged after it; False if there is none."""
        place = newest_checkpoint(self.folder / "checkpoints", warn)
        if place is not None:
            self.state.load(place)
            self.state.saved_iteration = step_of(place)
        if self.accelerator.is_main_process:
            self.metrics.truncate_after(self.state.iteration)
            self.rollouts.truncate_after(self.state.iteration)
        self.accelerator.wait_for_everyone()
        return place is not None

    def save(self) -> None:
        """Write a checkpoint of the present state."""
        write = self.state.writer()
        if self.accelerator.is_main_process:
            protect = [self.state.best_iteration] if self.state.best_iteration is not None else []
            save_checkpoint(self.folder / "checkpoints", self.state.iteration, write, self.keep, protect)
        self.state.saved_iteration = self.state.iteration
        self.accelerator.wait_for_everyone()

    def _iteration(self, progress: Progress, stop: StopRequest) -> None:
        started = time.perf_counter()
        number = self.state.iteration + 1
        progress.stage("rollout")
        if self.state.pending is None:
            self._stop_if_wanted(stop)
            collected = self._collect(number)
            self.state.begin(collected.experience, collected.metrics)
            self._stop_if_wanted(stop)
        progress.stage("update")
        metrics = self._update(stop)
        metrics["seconds/iteration"] = time.perf_counter() - started
        metrics["tokens/per_second"] = metrics["tokens/sampled"] / metrics["seconds/iteration"]
        self.state.finish()
        is_best = self._evaluate_if_due(metrics, progress)
        # Logged before it is saved: a resumed run cuts the log back to its checkpoint, never the reverse.
        self._report(number, metrics)
        if is_best or (self.save_every and number % self.save_every == 0):
            self.save()
        progress.update(number, metrics)

    def _collect(self, number: int) -> Collected:
        self.learner.policy.eval()
        collected = self.collector.collect(number)
        if self.accelerator.is_main_process and collected.rollouts:
            images = [example.images for example in collected.examples]
            self.rollouts.write(number, collected.rollouts, images)
        return collected

    def _update(self, stop: StopRequest) -> dict[str, float]:
        """Take the iteration's remaining optimizer steps; return its metrics."""
        pending = self.state.pending
        assert pending is not None
        started = time.perf_counter()
        self.learner.policy.train()
        self.learner.prepare(pending.experience)
        number = self.state.iteration + 1
        for step in self.learner.learn(pending.experience, number, done=len(pending.steps)):
            pending.steps.append(step)
            self._stop_if_wanted(stop)
        seconds = {"seconds/update": time.perf_counter() - started}
        return {**pending.metrics, **average(pending.steps), **seconds}

    def _evaluate_if_due(self, metrics: dict[str, float], progress: Progress) -> bool:
        """Add held-out metrics if it is time for them; True if they are the best so far."""
        if not (self.evaluator and self.evaluate_every and self.state.iteration % self.evaluate_every == 0):
            return False
        progress.stage("evaluation")
        metrics.update(self.evaluate())
        return self.state.note_accuracy(metrics["eval/accuracy"])

    def evaluate(self) -> dict[str, float]:
        """Run the evaluator."""
        assert self.evaluator is not None
        self.learner.policy.eval()
        return self.evaluator()

    def _report(self, number: int, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.metrics.write(number, metrics)
        self.accelerator.log(metrics, step=number)

    def _stop_if_wanted(self, stop: StopRequest) -> None:
        if stop.wanted():
            self.save()
            raise RunEnded(
                f"stopped after iteration {self.state.iteration}; the checkpoint is in "
                f"{self.folder / 'checkpoints'}; run the same command with --resume to go on",
                128 + stop.signal,
            )
