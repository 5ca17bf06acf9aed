"""Carries out what the guard decides on a run in progress; all processes alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from mm_cpgd.guard.guard import Guard, Review
from mm_cpgd.guard.snapshots import Snapshots, put_back, take
from mm_cpgd.processes import on_main

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mm_cpgd.algorithms.objective import Objective
    from mm_cpgd.learning import Learner

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
