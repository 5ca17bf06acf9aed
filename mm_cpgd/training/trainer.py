"""Training loop: collect, update, evaluate, review by the guard, log and save, once per iteration."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from accelerate import Accelerator

from data.videos.preview import pictures_of
from mm_cpgd.checkpoint.folder import newest_checkpoint
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.distributed import on_main
from mm_cpgd.errors import EngineFailed, RunEnded
from mm_cpgd.guard.guard import Review
from mm_cpgd.guard.rollback import DIVERGED
from mm_cpgd.interrupt import Interrupted, ShouldStop, StopRequest, check
from mm_cpgd.rollout.parity import EngineMismatch
from mm_cpgd.tracking import MetricsLog, Progress, RolloutLog
from mm_cpgd.training.experience import Collected, ExperienceSource, RowsLost
from mm_cpgd.training.learner import Learner, average
from mm_cpgd.training.optimizer import Diverged
from mm_cpgd.training.resume import Changes
from mm_cpgd.training.saving.saver import CheckpointSaver
from mm_cpgd.training.state import TrainingState
from rewards import RuleError

# Lost rows of an iteration that are printed.
SHOWN_LOST = 3
# Held-out evaluation of the current policy: metrics ``eval/accuracy`` and more.
Evaluator = Callable[[ShouldStop], dict[str, float]]


class Trainer:
    """Runs the iterations of a run, from its newest complete checkpoint on.

    Args:
        config: run folder, and when to evaluate, to save and to log rollouts.
        accelerator: the run's accelerator.
        source: first half of a step: prompts to experience.
        learner: second half: experience to optimizer steps.
        state: everything that a checkpoint holds.
        evaluator: held-out evaluation, or None.
        iterations: iterations of the whole run.
    """

    def __init__(
        self,
        config: RunConfig,
        accelerator: Accelerator,
        source: ExperienceSource,
        learner: Learner,
        state: TrainingState,
        evaluator: Evaluator | None,
        iterations: int,
    ) -> None:
        tracking = config.tracking
        self.config = config
        self.folder = config.folder
        self.accelerator = accelerator
        self.source = source
        self.learner = learner
        self.state = state
        self.evaluator = evaluator
        self.iterations = iterations
        self.metrics = MetricsLog(self.folder / "metrics.jsonl")
        self.rollouts = RolloutLog(
            self.folder / "rollouts", tracking.rollouts_every, tracking.rollouts_images
        )
        self.saver = CheckpointSaver(
            accelerator,
            self.folder / "checkpoints",
            config.checkpoint.keep,
            background=config.checkpoint.background,
        )
        self.rollback = state.rollback
        self._collected: Collected | None = None
        self._undo_collection: Callable[[], None] | None = None
        self._say: Callable[[str], None] = lambda text: None

    def run(self, progress: Progress) -> None:
        """Train to the last iteration.

        Raises:
            RunEnded: interrupted by a signal, stopped by the guard, by samples of another policy or by the
                end of the sampling engine (after a checkpoint), or too many steps in a row were not finite.
        """
        self._say = progress.print_message
        with StopRequest(self.accelerator) as stop:
            try:
                if not self.state.begun:
                    self._begin(progress, stop.wanted)
                if self.rollback:
                    self.rollback.start(self.state.iteration, progress.print_message)
                while self.state.iteration < self.iterations:
                    self._iteration(progress, stop.wanted)
            except Interrupted:
                self._stop(stop)
            except Diverged as diverged:
                self._end_diverged(diverged)
            except EngineMismatch as mismatch:
                self._stop_on_mismatch(mismatch)
            except RuleError:
                # The iterations since the last checkpoint are worth keeping; the rule can be fixed.
                if self.state.iteration:
                    self._save_now()
                raise
            except RowsLost as lost:
                self._stop_without_rows(lost)
            except EngineFailed as failed:
                self._stop_without_engine(failed)
        self._save_now()
        on_main(self.accelerator, self.rollouts.flush)
        if self.rollback:
            self.rollback.finish()

    def resume(self, warn: Callable[[str], None]) -> Changes | None:
        """Load the newest complete checkpoint and truncate the logs to it.

        Returns:
            What this run does differently from the checkpoint's; None if there is no checkpoint.

        Raises:
            CheckpointError: it does not fit this run.
            UserError: it belongs to another run.
        """
        place = on_main(self.accelerator, lambda: newest_checkpoint(self.folder / "checkpoints", warn))
        self.state.warn = warn
        changes = None if place is None else self.state.load(place)
        on_main(self.accelerator, self._truncate_logs)
        return changes

    @property
    def has_stepped(self) -> bool:
        """Whether the run has taken an optimizer step, before an interruption or since."""
        return bool(self.learner.step.scheduler.last_epoch > 0)

    def save(self) -> None:
        """Write a checkpoint of the current state.

        Raises:
            CheckpointError: on all processes, if the main process cannot write it; earlier checkpoints stay.
        """
        on_main(self.accelerator, self.rollouts.flush)
        self.saver.save(self.state)
        self.state.saved = True

    def _save_now(self) -> None:
        """Write a checkpoint of the current state unless there is one, and wait until it is complete."""
        if not self.state.saved:
            self.save()
        self.saver.wait()

    def _begin(self, progress: Progress, should_stop: ShouldStop) -> None:
        """Evaluate the policy before training; its row of metrics has iteration 0."""
        if self.config.evaluation.before and self.evaluator:
            progress.print_message("evaluating the policy before training …")
            self._report(0, self._evaluate(progress, should_stop))
        self.state.begun = True

    def _iteration(self, progress: Progress, should_stop: ShouldStop) -> None:
        started = time.perf_counter()
        number = self.state.iteration + 1
        if self.state.pending is None:
            progress.set_stage("rollout")
            check(should_stop)
            self._collect(number, should_stop)
            check(should_stop)
        progress.set_stage("update")
        try:
            metrics = self._update(number, should_stop)
        except EngineMismatch:
            if self._undo_collection:
                raise
            # Samples of an earlier start, at which the engine may have been another one.
            self._say(
                "warning: vLLM sampled the iteration in progress from another policy; it is sampled again"
            )
            self.state.pending = None
            return
        if warning := self.learner.step.lost_steps(metrics):
            progress.print_message(warning)
        metrics["seconds/iteration"] = time.perf_counter() - started
        metrics["tokens/per_second"] = metrics["tokens/sampled"] / metrics["seconds/iteration"]
        if self._evaluation_is_due(number):
            metrics |= self._evaluate(progress, should_stop)
        review = self._review(number, metrics, progress)
        if review.roll_back:
            self.source.discard()
        # After a rollback the evaluated weights no longer exist.
        accuracy = float("nan") if review.roll_back else metrics.get("eval/accuracy", float("nan"))
        is_best = self.state.note_accuracy(number, accuracy)
        self.state.finish()
        # Logged before saving: a resumed run truncates the log to its checkpoint, not the other way round.
        self._report(number, metrics)
        if is_best or self._checkpoint_is_due(number):
            self.save()
        progress.update(number, metrics)
        if review.stop:
            self._stop_on_alarm(review)

    def _review(self, number: int, metrics: dict[str, float], progress: Progress) -> Review:
        """Let the guard review the iteration, rolling back if it decides so; add its metrics."""
        if self.rollback is None:
            return Review()
        review = self.rollback.review(number, metrics, progress.print_message)
        metrics |= review.metrics
        return review

    def _collect(self, number: int, should_stop: ShouldStop) -> None:
        """Collect the iteration's experience; if interrupted, the draws are undone."""
        draws, saved = self.state.draws(), self.state.saved
        self._undo_collection = lambda: self.state.undo_collection(draws, saved)
        self._collected = None
        self.learner.policy.eval()
        try:
            collected = self.source.collect(number, should_stop)
        except (Interrupted, RuleError, RowsLost, EngineFailed):
            self.state.undo_draws(draws)
            raise
        for line in collected.lost[:SHOWN_LOST]:
            self._say(line)
        if len(collected.lost) > SHOWN_LOST:
            self._say(f"… and {len(collected.lost) - SHOWN_LOST:,} more rows")
        self.state.begin(collected.experience, collected.metrics)
        self._collected = collected
        self._write_rollouts(force=False)

    def _update(self, number: int, should_stop: ShouldStop) -> dict[str, float]:
        """Take the iteration's remaining optimizer steps; return its metrics."""
        pending = self.state.pending
        assert pending is not None
        started = time.perf_counter()
        self.learner.policy.train()
        extra = {}
        try:
            for step in self.learner.update(pending.experience, number, done=len(pending.steps)):
                pending.steps.append(step)
                self.state.saved = False
                check(should_stop)
        except Diverged:
            if self.rollback is None or not self.rollback.can_roll_back:
                raise
            extra[DIVERGED] = 1.0
        if pending.experience.outcomes is not None:
            self.learner.objective.note(pending.experience.outcomes)
        extra["seconds/update"] = time.perf_counter() - started
        reported = self.learner.objective.memory_metrics()
        return {**pending.metrics, **average(pending.steps), **reported, **extra}

    def _evaluation_is_due(self, number: int) -> bool:
        if self.evaluator is None:
            return False
        every = self.config.evaluation.every
        during = bool(every) and number % every == 0
        return during or (self.config.evaluation.after and number == self.iterations)

    def _checkpoint_is_due(self, number: int) -> bool:
        every = self.config.checkpoint.every
        return bool(every) and number % every == 0

    def _evaluate(self, progress: Progress, should_stop: ShouldStop) -> dict[str, float]:
        assert self.evaluator is not None
        progress.set_stage("evaluation")
        self.learner.policy.eval()
        started = time.perf_counter()
        metrics = self.evaluator(should_stop)
        return {**metrics, "seconds/evaluation": time.perf_counter() - started}

    def _report(self, number: int, metrics: dict[str, float]) -> None:
        on_main(self.accelerator, lambda: self.metrics.write(number, metrics))
        self.accelerator.log(metrics, step=number)

    def _write_rollouts(self, force: bool) -> None:
        """Write the newest rollouts of the main process, if they are due or ``force`` is set."""
        found, number = self._collected, self.state.iteration + 1
        if found and found.rollouts:
            images = [pictures_of(example) for example in found.examples]
            on_main(
                self.accelerator, lambda: self.rollouts.write(number, found.rollouts, images, force=force)
            )

    def _truncate_logs(self) -> None:
        self.metrics.truncate_after(self.state.iteration if self.state.begun else -1)
        self.rollouts.truncate_after(self.state.number)

    def _stop(self, stop: StopRequest) -> NoReturn:
        stop.wanted()  # one process alone may know of the signal
        self.source.discard()
        self._save_now()
        raise RunEnded(
            f"stopped after iteration {self.state.iteration}; the checkpoint is in "
            f"{self.folder / 'checkpoints'}; run the same command with --resume to continue",
            128 + stop.signal,
        )

    def _stop_without_rows(self, lost: RowsLost) -> NoReturn:
        self._save_now()
        raise RunEnded(
            f"iteration {self.state.iteration + 1}: {lost}; the checkpoint is in "
            f"{self.folder / 'checkpoints'}; bring the files back and run the same command with --resume"
        )

    def _stop_on_mismatch(self, mismatch: EngineMismatch) -> NoReturn:
        """End the run with a checkpoint of the state before the samples, which are drawn again later."""
        self._write_rollouts(force=True)
        self.source.discard()
        number = self.state.iteration + 1
        assert self._undo_collection is not None
        self._undo_collection()
        self._save_now()
        raise RunEnded(
            f"iteration {number}: {mismatch}; the checkpoint is in {self.folder / 'checkpoints'}; once the "
            "cause is found, run the same command with --resume, which samples the iteration again"
        ) from None

    def _stop_without_engine(self, failed: EngineFailed) -> NoReturn:
        self._save_now()
        raise RunEnded(
            f"iteration {self.state.iteration + 1}: {failed}; the checkpoint is in "
            f"{self.folder / 'checkpoints'}; set the engine right and run the same command with --resume"
        )

    def _stop_on_alarm(self, review: Review) -> NoReturn:
        """End the run with a checkpoint of its current state; the message states the reason."""
        self._save_now()
        raise RunEnded(
            f"{review.lines[0]}; the run is stopped; its checkpoint is in {self.folder / 'checkpoints'}"
        )

    def _end_diverged(self, diverged: Diverged) -> NoReturn:
        """End a diverged run; its earlier checkpoints stay as they are."""
        self._write_rollouts(force=True)
        on_main(self.accelerator, self.rollouts.flush)
        file = self.rollouts.path(self.state.iteration + 1)
        sampled = f"; the completions are in {file}" if file.exists() else ""
        raise RunEnded(f"iteration {self.state.iteration + 1}: {diverged}{sampled}") from None
