"""Rollback of a run: snapshots of the trained state, and the controller that restores them on an alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.distributed import on_main, together
from mm_cpgd.guard.guard import Guard, Review
from mm_cpgd.policy.sharding.tensors import local_value, with_layout
from mm_cpgd.tracking.files import writing

if TYPE_CHECKING:
    from mm_cpgd.algorithms.objective import Objective


Say = Callable[[str], None]
DIVERGED = "guard/diverged"
"""Metric that is 1 in an iteration whose optimizer steps were not finite too often in a row."""


class ScalableStep(Protocol):
    """An optimizer whose learning rates can be scaled."""

    @property
    def optimizer(self) -> Any:
        """The optimizer, perhaps wrapped by accelerate."""

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the learning rates for the rest of the run."""


class GuardedLearner(Protocol):
    """A learner's policy, objective and optimizer step, as far as a rollback needs them."""

    objective: Objective

    @property
    def policy(self) -> nn.Module:
        """The bare policy."""

    @property
    def step(self) -> ScalableStep:
        """The optimizer step."""


class RollbackController:
    """Applies the guard's decisions: takes snapshots and restores them.

    Args:
        accelerator: the run's accelerator.
        guard: makes the decisions.
        snapshots: the snapshots that can be restored.
        learner: its policy, optimizer and objective are restored and changed.
    """

    def __init__(
        self, accelerator: Accelerator, guard: Guard, snapshots: Snapshots, learner: GuardedLearner
    ) -> None:
        self.accelerator = accelerator
        self.guard = guard
        self.snapshots = snapshots
        self.learner = learner
        # Alpha is always scaled from the composed objective, also if a checkpoint restores earlier rollbacks.
        self._objective = learner.objective

    @property
    def can_roll_back(self) -> bool:
        """Whether a run that diverges may continue."""
        return self._is_active and self.guard.rollbacks < self.guard.config.max_rollbacks

    @property
    def _is_active(self) -> bool:
        return self.guard.config.action == "rollback"

    def start(self, iteration: int, say: Say) -> None:
        """Take the first snapshot, of the starting policy, unless one was restored from a checkpoint."""
        if not self._is_active or self.snapshots.trusted is not None:
            return
        self._take_snapshot(iteration)
        size = 6 * sum(local_value(value).nbytes for value in self._trained().values())
        folder = self.snapshots.folder
        place = "memory per process" if folder is None else f"disk in {folder}"
        say(
            "guard: two snapshots of the trained weights and their moments take about "
            f"{size / 1e6:,.0f} MB of {place}"
        )

    def review(self, iteration: int, metrics: Mapping[str, float], say: Say) -> Review:
        """Review a finished iteration and apply the decision; stopping the run is left to the caller."""
        if self.guard.config.action == "off":
            return Review()
        started = time.perf_counter()
        # All processes decide by the main process's numbers, which are also those in metrics.jsonl.
        row = on_main(self.accelerator, lambda: {"iteration": iteration, **metrics})
        trusted = self.snapshots.trusted
        review = self.guard.review(row, trusted.iteration if trusted else None)
        for line in review.lines:
            say(line)
        if review.roll_back:
            self._roll_back(review.step_factor)
        elif self._is_active:
            self._update_snapshots(iteration, review, int(metrics.get("rollout/staleness", 0)))
        seconds = {"seconds/guard": time.perf_counter() - started}
        return replace(review, metrics={**review.metrics, **seconds})

    def finish(self) -> None:
        """Drop the snapshots at the end of the run."""
        self.snapshots.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the guard's state and the snapshots."""
        return {"guard": self.guard.state_dict(), "snapshots": self.snapshots.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint; its learning rates are restored with optimizer and schedule."""
        if self.guard.config.action == "off":
            return
        self.guard.load_state_dict(state["guard"])
        self.learner.objective = scale_alpha(self._objective, self.guard.alpha_scale)
        if self._is_active:
            self.snapshots.load_state_dict(state["snapshots"])

    def _update_snapshots(self, iteration: int, review: Review, staleness: int) -> None:
        """Promote or discard the candidate once its policy has sampled; take another when due."""
        if not review.healthy:
            self.snapshots.discard()
            return
        candidate = self.snapshots.candidate
        if candidate and candidate.iteration + staleness >= iteration:
            return  # an older policy has sampled this iteration
        self.snapshots.promote()
        trusted = self.snapshots.trusted
        if trusted is None or iteration - trusted.iteration >= self.guard.config.copy_every:
            self._take_snapshot(iteration)
            if review.verified:
                self.snapshots.promote()

    def _take_snapshot(self, iteration: int) -> None:
        content = copy_state(self._trained(), self._optimizer)
        content["objective"] = self.learner.objective.state_dict()
        self.snapshots.store(iteration, content)

    def _roll_back(self, step_factor: float) -> None:
        """Restore the trusted snapshot; schedule, prompts and the count of iterations continue."""
        assert self.snapshots.trusted is not None
        content = self.snapshots.content(self.snapshots.trusted)
        restore_state(content, self._trained(), self._optimizer)
        self._objective.load_state_dict(content["objective"])
        self.snapshots.discard()
        self.learner.step.scale_learning_rates(step_factor)
        self.learner.objective = scale_alpha(self._objective, self.guard.alpha_scale)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.learner.policy.named_parameters() if value.requires_grad}

    @property
    def _optimizer(self) -> Any:
        """The bare optimizer, whose state is keyed by parameter."""
        return getattr(self.learner.step.optimizer, "optimizer", self.learner.step.optimizer)


def scale_alpha(objective: Objective, scale: float) -> Objective:
    """Return the objective with the policy drift's alpha multiplied; unchanged if it has no policy drift."""
    parts = tuple(
        replace(part, options={**part.options, "alpha": part.options["alpha"] * scale})
        if part.name == "policy_drift"
        else part
        for part in objective.regularizers
    )
    return replace(objective, regularizers=parts)


Content = dict[str, Any]


def copy_state(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Content:
    """Copy weights and moments to the CPU: with AdamW three times the trained weights' bytes.

    Of sharded weights, this process's parts.
    """
    moments = {
        name: {key: _to_cpu(value) for key, value in optimizer.state[parameter].items()}
        for name, parameter in parameters.items()
        if parameter in optimizer.state
    }
    return {"weights": {name: _to_cpu(value) for name, value in parameters.items()}, "moments": moments}


@torch.no_grad()
def restore_state(
    content: Content, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Undo all changes since ``copy_state``; learning rates are left unchanged."""
    for name, parameter in parameters.items():
        local_value(parameter).copy_(content["weights"][name])
        saved = content["moments"].get(name)
        if saved is None:
            optimizer.state.pop(parameter, None)
            continue
        state = optimizer.state[parameter]
        for key, value in saved.items():
            state[key] = _restored(value, state.get(key), parameter)


def _to_cpu(value: Any) -> Any:
    return local_value(value).to("cpu", copy=True) if isinstance(value, Tensor) else value


def _restored(saved: Any, present: Any, parameter: nn.Parameter) -> Any:
    """Return the saved value on the present one's device; else moments on the parameter's, counts on CPU."""
    if not isinstance(saved, Tensor):
        return saved
    if isinstance(present, Tensor):
        local_value(present).copy_(saved)
        return present
    part = local_value(parameter)
    if saved.shape != part.shape:
        return saved.to("cpu", copy=True)
    return with_layout(saved.to(part.device, copy=True), parameter)


@dataclass(frozen=True)
class Snapshot:
    """Trained state after an iteration.

    Attributes:
        iteration: the iteration after which it was taken.
        content: the state, or the file that holds it.
    """

    iteration: int
    content: Content | Path


class Snapshots:
    """At most two snapshots: the newest trusted one, and a newer candidate.

    A candidate becomes trusted when the next iteration, which samples from it, is healthy.

    Args:
        accelerator: the run's accelerator.
        folder: folder of snapshots on disk; None keeps them in memory, on every process.
        sharded: whether the content is this process's part, so that every process has a file of its own.
    """

    def __init__(self, accelerator: Accelerator, folder: Path | None, *, sharded: bool = False) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.sharded = sharded
        self.trusted: Snapshot | None = None
        self.candidate: Snapshot | None = None

    def store(self, iteration: int, content: Content) -> None:
        """Keep a snapshot as candidate; the first one is trusted at once."""
        snapshot = Snapshot(iteration, self._stored(iteration, content))
        if self.trusted is None:
            self.trusted = snapshot
        else:
            self.candidate = snapshot
        self._remove_unused_files()

    def promote(self) -> None:
        """Make the candidate, if there is one, the trusted snapshot."""
        if self.candidate is not None:
            self.trusted, self.candidate = self.candidate, None

    def discard(self) -> None:
        """Drop the candidate."""
        self.candidate = None

    def clear(self) -> None:
        """Drop both snapshots."""
        self.trusted = self.candidate = None
        self._remove_unused_files()

    def content(self, snapshot: Snapshot) -> Content:
        """Return a snapshot's content, read from disk if it is stored there."""
        if isinstance(snapshot.content, dict):
            return snapshot.content
        loaded: Content = load_state(snapshot.content)
        return loaded

    def state_dict(self) -> dict[str, Any]:
        """Return both snapshots with their content, for a checkpoint."""
        # Keys of stored checkpoints: "good" is the trusted snapshot, "young" the candidate.
        kept = {"good": self.trusted, "young": self.candidate}
        return {
            role: snapshot and {"iteration": snapshot.iteration, "content": self.content(snapshot)}
            for role, snapshot in kept.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the snapshots of a checkpoint."""
        self.trusted, self.candidate = (self._from_state(state[role]) for role in ("good", "young"))
        self._remove_unused_files()

    def _from_state(self, saved: Mapping[str, Any] | None) -> Snapshot | None:
        if saved is None:
            return None
        return Snapshot(saved["iteration"], self._stored(saved["iteration"], saved["content"]))

    def _stored(self, iteration: int, content: Content) -> Content | Path:
        if self.folder is None:
            return content
        file = self.folder / f"after-{iteration}{self._suffix}"
        run = together if self.sharded else on_main
        run(self.accelerator, lambda: _write(file, content))
        return file

    @property
    def _suffix(self) -> str:
        own = f".part-{self.accelerator.process_index}" if self.sharded else ""
        return f"{own}.safetensors"

    def _remove_unused_files(self) -> None:
        """Remove the files of snapshots that were dropped."""
        if self.folder is None or not (self.sharded or self.accelerator.is_main_process):
            return
        kept = {snapshot.content for snapshot in (self.trusted, self.candidate) if snapshot}
        for file in self.folder.glob(f"after-*{self._suffix}"):
            if file not in kept:
                file.unlink()


def _write(file: Path, content: Content) -> None:
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_state(file, content)
