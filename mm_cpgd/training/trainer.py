"""The training loop: rollout, rewards, advantages, update, and what surrounds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from accelerate import Accelerator

from mm_cpgd.checkpoint.folder import newest_checkpoint, save_checkpoint
from mm_cpgd.distributed import on_main
from mm_cpgd.errors import RunEnded
from mm_cpgd.guard.guard import Review
from mm_cpgd.guard.rollback import DIVERGED
from mm_cpgd.interrupt import Interrupted, ShouldStop, StopRequest, check
from mm_cpgd.tracking import MetricsLog, Progress, RolloutLog
from mm_cpgd.training.experience import Collected, ExperienceSource
from mm_cpgd.training.learner import Learner, average
from mm_cpgd.training.optimizer import Diverged
from mm_cpgd.training.state import TrainingState

# Held-out evaluation of the policy as it is; the command line hands it in.
Evaluator = Callable[[ShouldStop], dict[str, float]]


class Trainer:
    """Runs the iterations of a run, from where its newest whole checkpoint stands.

    Args:
        accelerator: of the run.
        source: first half of the step: prompts to experience.
        learner: second half: experience to optimizer steps.
        state: everything that a checkpoint holds.
        folder: the run folder.
        evaluator: gives ``eval/accuracy`` and more, or None.
        metrics: written once an iteration.
        rollouts: what was asked, answered, rewarded and why.
        iterations: of the whole run.
        evaluate_before: whether to evaluate the policy that training starts from.
        evaluate_every: iterations between evaluations, 0 for none on the way.
        evaluate_after: whether to evaluate after the last iteration.
        save_every: iterations between checkpoints, 0 for one at the end.
        keep: checkpoints that stay beside the best.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        source: ExperienceSource,
        learner: Learner,
        state: TrainingState,
        folder: Path,
        evaluator: Evaluator | None,
        metrics: MetricsLog,
        rollouts: RolloutLog,
        *,
        iterations: int,
        evaluate_before: bool,
        evaluate_every: int,
        evaluate_after: bool,
        save_every: int,
        keep: int,
    ) -> None:
        self.accelerator = accelerator
        self.source = source
        self.learner = learner
        self.state = state
        self.folder = folder
        self.evaluator = evaluator
        self.metrics = metrics
        self.rollouts = rollouts
        self.iterations = iterations
        self.evaluate_before = evaluate_before
        self.evaluate_every = evaluate_every
        self.evaluate_after = evaluate_after
        self.save_every = save_every
        self.keep = keep
        self.keeper = state.keeper
        self._collected: Collected | None = None

    def run(self, progress: Progress) -> None:
        """Train to the last iteration.

        Raises:
            RunEnded: a signal was caught or the guard stops the run (after a checkpoint), or steps were not
                finite too often in a row.
        """
        with StopRequest(self.accelerator) as stop:
            try:
                if not self.state.begun:
                    self._begin(progress, stop.wanted)
                if self.keeper:
                    self.keeper.begin(self.state.iteration, progress.say)
                while self.state.iteration < self.iterations:
                    self._iteration(progress, stop.wanted)
            except Interrupted:
                self._stop(stop)
            except Diverged as diverged:
                self._give_up(diverged)
        if not self.state.saved:
            self.save()
        on_main(self.accelerator, self.rollouts.flush)
        if self.keeper:
            self.keeper.end()

    def resume(self, warn: Callable[[str], None]) -> bool:
        """Take up the newest whole checkpoint and forget what was logged after it; False if there is none.

        Raises:
            CheckpointError: it does not fit this run.
        """
        place = on_main(self.accelerator, lambda: newest_checkpoint(self.folder / "checkpoints", warn))
        if place is not None:
            self.state.load(place)
        on_main(self.accelerator, self._truncate_logs)
        return place is not None

    def save(self) -> None:
        """Write a checkpoint of the present state.

        Raises:
            CheckpointError: on all processes, if the main one cannot write it; earlier ones stay as they are.
        """
        write, number = self.state.writer(), self.state.number
        protect = [self.state.best_iteration] if self.state.best_iteration is not None else []
        folder = self.folder / "checkpoints"
        on_main(self.accelerator, self.rollouts.flush)
        on_main(self.accelerator, lambda: save_checkpoint(folder, number, write, self.keep, protect))
        self.state.saved = True

    def _begin(self, progress: Progress, should_stop: ShouldStop) -> None:
        """Evaluate the policy before training; its row has the iteration 0."""
        if self.evaluate_before and self.evaluator:
            progress.say("evaluating the policy before training …")
            self._report(0, self._evaluate(progress, should_stop))
        self.state.begun = True

    def _iteration(self, progress: Progress, should_stop: ShouldStop) -> None:
        started = time.perf_counter()
        number = self.state.iteration + 1
        if self.state.pending is None:
            progress.stage("rollout")
            check(should_stop)
            self._collect(number, should_stop)
            check(should_stop)
        progress.stage("update")
        metrics = self._update(number, should_stop)
        metrics["seconds/iteration"] = time.perf_counter() - started
        metrics["tokens/per_second"] = metrics["tokens/sampled"] / metrics["seconds/iteration"]
        if self._evaluation_is_due(number):
            metrics |= self._evaluate(progress, should_stop)
        review = self._review(number, metrics, progress)
        # What was evaluated is gone if the guard has gone back.
        accuracy = float("nan") if review.go_back else metrics.get("eval/accuracy", float("nan"))
        is_best = self.state.note_accuracy(number, accuracy)
        self.state.finish()
        # Logged before it is saved: a resumed run cuts the log back to its checkpoint, never the reverse.
        self._report(number, metrics)
        if is_best or (self.save_every and number % self.save_every == 0):
            self.save()
        progress.update(number, metrics)
        if review.stop:
            self._stop_on_alarm(review)

    def _review(self, number: int, metrics: dict[str, float], progress: Progress) -> Review:
        """Let the guard look at the iteration and go back if it must; add what it says to the metrics."""
        if self.keeper is None:
            return Review()
        review = self.keeper.after(number, metrics, progress.say)
        metrics |= review.metrics
        return review

    def _collect(self, number: int, should_stop: ShouldStop) -> None:
        """Take the iteration's rollouts; broken off, they leave no trace."""
        draws = self.state.draws()
        self.learner.policy.eval()
        try:
            collected = self.source.collect(number, should_stop)
        except Interrupted:
            self.state.undo_draws(draws)
            raise
        self.state.begin(collected.experience, collected.metrics)
        self._collected = collected
        self._write_rollouts(force=False)

    def _update(self, number: int, should_stop: ShouldStop) -> dict[str, float]:
        """Take the iteration's remaining optimizer steps; return its metrics."""
        pending = self.state.pending
        assert pending is not None
        started = time.perf_counter()
        self.learner.policy.train()
        self.learner.prepare(pending.experience, number)
        extra = {}
        try:
            for step in self.learner.learn(pending.experience, number, done=len(pending.steps)):
                pending.steps.append(step)
                self.state.saved = False
                check(should_stop)
        except Diverged:
            if self.keeper is None or not self.keeper.can_go_back:
                raise
            extra[DIVERGED] = 1.0
        extra["seconds/update"] = time.perf_counter() - started
        return {**pending.metrics, **average(pending.steps), **extra}

    def _evaluation_is_due(self, number: int) -> bool:
        if self.evaluator is None:
            return False
        on_the_way = bool(self.evaluate_every) and number % self.evaluate_every == 0
        return on_the_way or (self.evaluate_after and number == self.iterations)

    def _evaluate(self, progress: Progress, should_stop: ShouldStop) -> dict[str, float]:
        assert self.evaluator is not None
        progress.stage("evaluation")
        self.learner.policy.eval()
        started = time.perf_counter()
        metrics = self.evaluator(should_stop)
        return {**metrics, "seconds/evaluation": time.perf_counter() - started}

    def _report(self, number: int, metrics: dict[str, float]) -> None:
        on_main(self.accelerator, lambda: self.metrics.write(number, metrics))
        self.accelerator.log(metrics, step=number)

    def _write_rollouts(self, force: bool) -> None:
        """Write the newest rollouts of the main process, if it is their turn or ``force`` is set."""
        found, number = self._collected, self.state.iteration + 1
        if found and found.rollouts:
            images = [example.images for example in found.examples]
            on_main(
                self.accelerator, lambda: self.rollouts.write(number, found.rollouts, images, force=force)
            )

    def _truncate_logs(self) -> None:
        self.metrics.truncate_after(self.state.iteration if self.state.begun else -1)
        self.rollouts.truncate_after(self.state.number)

    def _stop(self, stop: StopRequest) -> NoReturn:
        self.save()
        raise RunEnded(
            f"stopped after iteration {self.state.iteration}; the checkpoint is in "
            f"{self.folder / 'checkpoints'}; run the same command with --resume to go on",
            128 + stop.signal,
        )

    def _stop_on_alarm(self, review: Review) -> NoReturn:
        """End the run with a checkpoint of where it stands; the last line says why."""
        if not self.state.saved:
            self.save()
        raise RunEnded(
            f"{review.lines[0]}; the run is stopped; its checkpoint is in {self.folder / 'checkpoints'}"
        )

    def _give_up(self, diverged: Diverged) -> NoReturn:
        """End the run; its checkpoints stay as they are, from before the trouble."""
        self._write_rollouts(force=True)
        on_main(self.accelerator, self.rollouts.flush)
        file = self.rollouts.path(self.state.iteration + 1)
        sampled = f"; what was sampled is in {file}" if file.exists() else ""
        raise RunEnded(f"iteration {self.state.iteration + 1}: {diverged}{sampled}") from None
