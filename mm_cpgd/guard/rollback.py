"""Rollback of a run: snapshots of what is trained, and the controller that restores them on an alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.distributed import on_main
from mm_cpgd.guard.guard import Guard, Review
from mm_cpgd.tracking.files import writing

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mm_cpgd.algorithms.objective import Objective
    from mm_cpgd.training.learner import Learner


Say = Callable[[str], None]
DIVERGED = "guard/diverged"


class Keeper:
    """Guard, copies to go back to, and the hands that do it.

    Args:
        accelerator: of the run.
        guard: decides.
        snapshots: the copies.
        learner: whose policy, optimizer and objective are kept from harm.
        every: iterations from one copy to the next, at least.
    """

    def __init__(
        self, accelerator: Accelerator, guard: Guard, snapshots: Snapshots, learner: Learner, every: int = 1
    ) -> None:
        self.accelerator = accelerator
        self.guard = guard
        self.snapshots = snapshots
        self.learner = learner
        self.every = every
        # As composed: alpha is always scaled from here, also when a checkpoint brings its own rollbacks.
        self._objective = learner.objective

    @property
    def can_go_back(self) -> bool:
        """Whether a run that diverges may go on."""
        guard = self.guard
        return guard.action == "rollback" and guard.rollbacks < guard.max_rollbacks

    def begin(self, iteration: int, say: Say) -> None:
        """Take the first copy, of the policy that training starts from, unless a checkpoint brought one."""
        if self.guard.action != "rollback" or self.snapshots.good is not None:
            return
        self._copy(iteration)
        size = 6 * sum(value.numel() * value.element_size() for value in self._trained().values())
        place = "memory a process" if self.snapshots.folder is None else f"disk in {self.snapshots.folder}"
        say(
            f"guard: two copies of what is trained and its moments take about {size / 1e6:,.0f} MB of {place}"
        )

    def after(self, iteration: int, metrics: Mapping[str, float], say: Say) -> Review:
        """Look at a finished iteration and do what has to be done, but for stopping."""
        if self.guard.action == "off":
            return Review()
        started = time.perf_counter()
        # The main process's numbers for all: they decide, and they are what metrics.jsonl will hold.
        row = on_main(self.accelerator, lambda: {"iteration": iteration, **metrics})
        good = self.snapshots.good
        review = self.guard.review(row, good.iteration if good else None)
        for line in review.lines:
            say(line)
        if review.go_back:
            self._go_back(review.step_factor)
        elif self.guard.action == "rollback":
            self._keep(iteration, review)
        seconds = {"seconds/guard": time.perf_counter() - started}
        return replace(review, metrics={**review.metrics, **seconds})

    def end(self) -> None:
        """Give up the copies; the run is done."""
        self.snapshots.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what decisions depend on, and the copies."""
        return {"guard": self.guard.state_dict(), "snapshots": self.snapshots.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; its learning rates are the optimizer's and the schedule's matter."""
        if self.guard.action == "off":
            return
        self.guard.load_state_dict(state["guard"])
        self.learner.objective = with_alpha(self._objective, self.guard.alpha_scale)
        if self.guard.action == "rollback":
            self.snapshots.load(state["snapshots"])

    def _keep(self, iteration: int, review: Review) -> None:
        """Approve the copy on trial, which this iteration sampled from, and take another when it is time."""
        if not review.calm:
            self.snapshots.reject()
            return
        self.snapshots.approve()
        good = self.snapshots.good
        if good is None or iteration - good.iteration >= self.every:
            self._copy(iteration)
            if review.proven:
                self.snapshots.approve()

    def _copy(self, iteration: int) -> None:
        content = take(self._trained(), self._optimizer)
        content["objective"] = self.learner.objective.state_dict()
        self.snapshots.store(iteration, content)

    def _go_back(self, step_factor: float) -> None:
        """Put the last good copy back; the schedule, the prompts and the count of iterations go on."""
        assert self.snapshots.good is not None
        content = self.snapshots.content(self.snapshots.good)
        put_back(content, self._trained(), self._optimizer)
        self._objective.load_state_dict(content["objective"])
        self.snapshots.reject()
        self.learner.step.soften(step_factor)
        self.learner.objective = with_alpha(self._objective, self.guard.alpha_scale)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.learner.policy.named_parameters() if value.requires_grad}

    @property
    def _optimizer(self) -> Any:
        """The bare one, whose state is keyed by parameter."""
        return getattr(self.learner.step.optimizer, "optimizer", self.learner.step.optimizer)


def with_alpha(objective: Objective, scale: float) -> Objective:
    """Return the objective with the policy drift's alpha multiplied; unchanged where it has no drift."""
    parts = tuple(
        replace(part, options={**part.options, "alpha": part.options["alpha"] * scale})
        if part.name == "policy_drift"
        else part
        for part in objective.regularizers
    )
    return replace(objective, regularizers=parts)


Content = dict[str, Any]


def take(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Content:
    """Copy weights and moments to the CPU: with AdamW three times the trained weights' bytes."""
    moments = {
        name: {key: _copy(value) for key, value in optimizer.state[parameter].items()}
        for name, parameter in parameters.items()
        if parameter in optimizer.state
    }
    return {"weights": {name: _copy(value) for name, value in parameters.items()}, "moments": moments}


@torch.no_grad()
def put_back(
    content: Content, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Undo everything since ``take``; learning rates stay as they are."""
    for name, parameter in parameters.items():
        parameter.copy_(content["weights"][name])
        saved = content["moments"].get(name)
        if saved is None:
            optimizer.state.pop(parameter, None)
            continue
        state = optimizer.state[parameter]
        for key, value in saved.items():
            state[key] = _like(value, state.get(key), parameter)


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _like(saved: Any, present: Any, parameter: nn.Parameter) -> Any:
    """The saved value where the present one lies; moments with their parameter, counts on the CPU."""
    if not isinstance(saved, Tensor):
        return saved
    if isinstance(present, Tensor):
        return present.copy_(saved)
    return saved.to(parameter.device if saved.shape == parameter.shape else "cpu", copy=True)


@dataclass(frozen=True)
class Snapshot:
    """A copy taken after an iteration: its content, or the file that holds it."""

    iteration: int
    content: Content | Path


class Snapshots:
    """Two copies at most: the newest that the next iteration found good, and a younger one on trial.

    Args:
        accelerator: of the run.
        folder: where copies go on disk; None keeps them in memory, on every process.
    """

    def __init__(self, accelerator: Accelerator, folder: Path | None) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.good: Snapshot | None = None
        self.young: Snapshot | None = None

    def store(self, iteration: int, content: Content) -> None:
        """Keep a copy, on trial; the first one is taken for good."""
        snapshot = Snapshot(iteration, self._written(iteration, content))
        if self.good is None:
            self.good = snapshot
        else:
            self.young = snapshot
        self._tidy()

    def approve(self) -> None:
        """The iteration after the younger copy was a good one."""
        if self.young is not None:
            self.good, self.young = self.young, None

    def reject(self) -> None:
        """The iteration after the younger copy was not good."""
        self.young = None

    def clear(self) -> None:
        """Forget both copies."""
        self.good = self.young = None
        self._tidy()

    def content(self, snapshot: Snapshot) -> Content:
        """Return a copy's content, read from the disk where it lies there."""
        if isinstance(snapshot.content, dict):
            return snapshot.content
        loaded: Content = load_state(snapshot.content)
        return loaded

    def state(self) -> dict[str, Any]:
        """Return both copies whole, for a checkpoint."""
        kept = {"good": self.good, "young": self.young}
        return {
            role: snapshot and {"iteration": snapshot.iteration, "content": self.content(snapshot)}
            for role, snapshot in kept.items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with the copies of a checkpoint."""
        self.good, self.young = (self._from_state(state[role]) for role in ("good", "young"))
        self._tidy()

    def _from_state(self, saved: Mapping[str, Any] | None) -> Snapshot | None:
        if saved is None:
            return None
        return Snapshot(saved["iteration"], self._written(saved["iteration"], saved["content"]))

    def _written(self, iteration: int, content: Content) -> Content | Path:
        if self.folder is None:
            return content
        file = self.folder / f"after-{iteration}.safetensors"
        on_main(self.accelerator, lambda: _write(file, content))
        return file

    def _tidy(self) -> None:
        """Remove the files of copies that are no longer kept."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        kept = {snapshot.content for snapshot in (self.good, self.young) if snapshot}
        for file in self.folder.glob("after-*.safetensors"):
            if file not in kept:
                file.unlink()


def _write(file: Path, content: Content) -> None:
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_state(file, content)
