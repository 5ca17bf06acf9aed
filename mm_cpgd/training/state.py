"""Training state: everything that a checkpoint holds, saved and restored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from data import DataError, PromptSampler
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.checkpoint.serialization import (
    CheckpointError,
    load_state,
    random_states,
    save_state,
    set_random_states,
)
from mm_cpgd.guard.rollback import RollbackController
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.policy.sharding.tensors import is_sharded
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.optimizer import OptimizerStep
from mm_cpgd.training.resume import Changes, RunIdentity, compare
from mm_cpgd.training.saving.shards import (
    check_names,
    has_shards,
    load_tensors,
    optimizer_settings,
    restore_snapshots,
    take_snapshots,
    tensors_of,
    weight_shapes,
)

# Frozen weights are not saved: they are loaded again from policy.model.
OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


@dataclass
class Pending:
    """Iteration whose rollouts are complete and whose update is not: its experience and steps so far."""

    experience: Experience
    metrics: dict[str, float]
    steps: list[dict[str, float]] = field(default_factory=list)


class TrainingState:
    """Current state of the run; saved and loaded as a whole.

    Args:
        accelerator: the run's accelerator.
        model: the model as accelerate prepared it.
        step: holds optimizer and scheduler.
        sampler: draws prompts.
        reencode: encodes the prompts of given dataset indices again.
        objective: the objective, whose parts may have state.
        rollback: the guard and its snapshots, if the run has one.
        identity: what the state belongs to; None where that is not checked.

    Attributes:
        begun: the evaluation before training is done, or was not requested.
        iteration: number of finished iterations.
        pending: the iteration in progress, None between two.
        best_accuracy: best held-out accuracy so far, reached in ``best_iteration``.
        saved: whether the newest checkpoint holds this state.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        step: OptimizerStep,
        sampler: PromptSampler,
        reencode: Callable[[Sequence[int]], list[EncodedPrompt]],
        objective: Objective | None = None,
        rollback: RollbackController | None = None,
        identity: RunIdentity | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.step = step
        self.sampler = sampler
        self.reencode = reencode
        self.objective = objective
        self.rollback = rollback
        self.identity = identity
        self.begun = False
        self.iteration = 0
        self.pending: Pending | None = None
        self.best_accuracy: float | None = None
        self.best_iteration: int | None = None
        self.saved = False
        self.warn: Callable[[str], None] = lambda text: None

    @property
    def number(self) -> int:
        """Number of the checkpoint: the newest iteration in it, even if unfinished.

        An unfinished iteration thus never replaces the finished one before it, which may be the best.
        """
        return self.iteration + (self.pending is not None)

    def begin(self, experience: Experience, metrics: dict[str, float]) -> None:
        """Note that the rollouts of the next iteration are complete."""
        self.pending, self.saved = Pending(experience, metrics), False

    def finish(self) -> None:
        """Note that the iteration's update is complete."""
        self.pending, self.saved = None, False
        self.iteration += 1

    def draws(self) -> dict[str, Any]:
        """Return the state that drawing prompts and sampling change."""
        return {"sampler": self.sampler.state_dict(), "random": random_states()}

    def undo_draws(self, draws: Mapping[str, Any]) -> None:
        """Restore the state of before a collection that was interrupted."""
        self.sampler.load_state_dict(draws["sampler"])
        set_random_states(draws["random"])

    def undo_collection(self, draws: Mapping[str, Any], saved: bool) -> None:
        """Restore the state of before a collection that is complete; ``saved`` as it was then."""
        self.undo_draws(draws)
        self.pending, self.saved = None, saved

    def note_accuracy(self, iteration: int, accuracy: float) -> bool:
        """Record an iteration's held-out accuracy; return whether it is the best so far."""
        is_best = accuracy > (float("-inf") if self.best_accuracy is None else self.best_accuracy)
        if is_best:
            self.best_accuracy, self.best_iteration = accuracy, iteration
        return is_best

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the weights."""
        return any(is_sharded(value) for value in self._trained().values())

    def shards(self) -> dict[str, Tensor] | None:
        """Return this process's parts of the trained state by name; None if weights are whole."""
        if not self.sharded:
            return None
        guard = self.rollback.state_dict() if self.rollback else None
        return tensors_of(self._trained(), self._optimizer) | take_snapshots(guard, self._trained())[1]

    def writer(self) -> Callable[[Path], None]:
        """Collect the state of all processes; return a function that writes it, for the main process.

        Of sharded weights it writes what ``shards`` leaves.
        """
        sharded = self.sharded
        weights = {} if sharded else self._weights()
        optimizer = None
        # Before the first step there is no state, and torch's function would take a step to create it.
        if self._optimizer.state and not sharded:
            optimizer = get_optimizer_state_dict(self.model, self._optimizer, options=OPTIONS)
        processes = gather_object([self._own_state()])
        guard = self.rollback.state_dict() if self.rollback else None
        settings = None
        if sharded:
            guard = take_snapshots(guard, self._trained())[0]
            settings = optimizer_settings(self._trained(), self._optimizer)
        shared = {
            "begun": self.begun,
            "iteration": self.iteration,
            "sampler": self.sampler.state_dict(),
            "objective": self.objective.state_dict() if self.objective else {},
            "scheduler": self.step.scheduler.state_dict(),
            "skipped_in_a_row": self.step.skipped_in_a_row,
            "best": [self.best_accuracy, self.best_iteration],
            "guard": guard,
            "optimizer": settings,
            "identity": self.identity and self.identity.state(),
        }

        if sharded:  # it may be written in the background, while the optimizer counts on
            shared = copy.deepcopy(shared)

        def write(folder: Path) -> None:
            if not sharded:
                save_file(weights, folder / "weights.safetensors")
                save_state(folder / "optimizer.safetensors", optimizer)
            save_state(folder / "run.safetensors", {"shared": shared, "processes": processes})

        return write

    def load(self, place: Path) -> Changes:
        """Restore the state that the checkpoint holds; return what this run does differently.

        Raises:
            CheckpointError: it does not fit this run.
            UserError: it belongs to another run, see ``mm_cpgd.training.resume``.
        """
        run = load_state(place / "run.safetensors")
        processes, shared = run["processes"], run["shared"]
        changes = compare(shared.get("identity"), self.identity) if self.identity else Changes()
        if len(processes) != self.accelerator.num_processes and any(own["pending"] for own in processes):
            raise CheckpointError(
                f"{place} was saved during an iteration by {len(processes)} processes; resume it "
                f"with as many, not {self.accelerator.num_processes}"
            )
        fresh = self.step.settings()
        if has_shards(place):
            check_names(place, weight_shapes(place), self._trained())
            load_tensors(place, shared["optimizer"], self._trained(), self._optimizer)
        else:
            self._load_whole(place)
        self.step.scheduler.load_state_dict(shared["scheduler"])
        self.step.apply(fresh, changes.settings)
        self.step.skipped_in_a_row = shared["skipped_in_a_row"]
        self.sampler.load_state_dict(shared["sampler"])
        if self.objective and not any(name.startswith("algorithm.") for name in changes.settings):
            self.objective.load_state_dict(shared.get("objective", {}))
        self.begun, self.iteration = shared["begun"], shared["iteration"]
        self.best_accuracy, self.best_iteration = shared["best"]
        if "data.eval" in changes.settings:  # an accuracy on other rows is no measure for these
            self.best_accuracy, self.best_iteration = None, None
        if len(processes) == self.accelerator.num_processes:
            self._load_own_state(processes[self.accelerator.process_index])
        if self.rollback and shared.get("guard"):
            self.rollback.load_state_dict(restore_snapshots(place, shared["guard"], self._trained()))
        if self.pending and changes.noted:
            self.warn("the iteration in progress is sampled again, by the new settings")
            self.pending = None
        self.saved = True
        return changes

    def _load_whole(self, place: Path) -> None:
        """Restore weights and optimizer from files that hold whole tensors."""
        options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
        weights: dict[str, Any] = load_file(place / "weights.safetensors")
        check_names(place, {name: value.shape for name, value in weights.items()}, self._trained())
        set_model_state_dict(self.model, weights, options=options)
        optimizer = load_state(place / "optimizer.safetensors")
        if optimizer is not None:
            set_optimizer_state_dict(self.model, self._optimizer, optimizer, options=options)

    @property
    def _optimizer(self) -> Any:
        """The optimizer without accelerate's wrapper, which torch's functions do not support."""
        return getattr(self.step.optimizer, "optimizer", self.step.optimizer)

    def _trained(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters; a parameter that two modules share appears once."""
        bare = self.accelerator.unwrap_model(self.model)
        return {name: value for name, value in bare.named_parameters() if value.requires_grad}

    def _weights(self) -> dict[str, Any]:
        """Return the trained weights, on the CPU of the main process; nothing on the others."""
        everything: dict[str, Any] = get_model_state_dict(self.model, options=OPTIONS)
        return {name: everything[name].contiguous() for name in self._trained() if name in everything}

    def _own_state(self) -> dict[str, Any]:
        pending = self.pending and {
            "experience": self.pending.experience.state(),
            "metrics": self.pending.metrics,
            "steps": self.pending.steps,
        }
        return {"random": random_states(), "pending": pending}

    def _load_own_state(self, own: Mapping[str, Any]) -> None:
        set_random_states(own["random"])
        self.pending = None
        if own["pending"]:
            saved = own["pending"]
            problem, prompts = None, []
            try:
                prompts = self.reencode(saved["experience"]["examples"])
            except (DataError, ValueError) as error:  # an image has vanished since
                problem = str(error)
            problems = [one for one in gather_object([problem]) if one]
            if problems:
                # On all processes: the mini-batches are planned over all of them.
                self.warn(f"the iteration in progress is sampled again: {problems[0]}")
                return
            experience = Experience.from_state(saved["experience"], prompts)
            self.pending = Pending(experience, saved["metrics"], saved["steps"])
