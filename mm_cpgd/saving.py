"""Everything that a checkpoint holds, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from data import PromptSampler
from mm_cpgd.checkpoint import CheckpointError, load_state, random_states, save_state, set_random_states
from mm_cpgd.experience import Experience
from mm_cpgd.learning import OptimizerStep
from mm_cpgd.policy import EncodedPrompt

# Frozen weights are not saved: they are loaded again from policy.model.
OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


@dataclass
class Pending:
    """An iteration whose rollouts are done and whose update is not: its experience and its steps so far."""

    experience: Experience
    metrics: dict[str, float]
    steps: list[dict[str, float]] = field(default_factory=list)


class TrainingState:
    """The run as it stands; saved and loaded as a whole.

    Args:
        accelerator: of the run.
        model: as accelerate prepared it.
        step: holds optimizer and scheduler.
        sampler: draws prompts.
        reencode: encodes the prompts of given dataset indices again.

    Attributes:
        iteration: iterations that are finished.
        pending: the one that is half done, None between two.
        best_accuracy: best held-out accuracy so far, of ``best_iteration``.
        saved_iteration: of the newest checkpoint, None if there is none.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        step: OptimizerStep,
        sampler: PromptSampler,
        reencode: Callable[[Sequence[int]], list[EncodedPrompt]],
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.step = step
        self.sampler = sampler
        self.reencode = reencode
        self.iteration = 0
        self.pending: Pending | None = None
        self.best_accuracy: float | None = None
        self.best_iteration: int | None = None
        self.saved_iteration: int | None = None

    def begin(self, experience: Experience, metrics: dict[str, float]) -> None:
        """Note that the rollouts of the next iteration are there."""
        self.pending = Pending(experience, metrics)

    def finish(self) -> None:
        """Note that the iteration's update is done."""
        self.pending = None
        self.iteration += 1

    def note_accuracy(self, accuracy: float) -> bool:
        """Remember a held-out accuracy; True if it is the best so far."""
        if self.best_accuracy is not None and accuracy <= self.best_accuracy:
            return False
        self.best_accuracy, self.best_iteration = accuracy, self.iteration
        return True

    def writer(self) -> Callable[[Path], None]:
        """Collect the state of all processes; the function it returns writes it, on one process."""
        weights = self._weights()
        optimizer = get_optimizer_state_dict(self.model, self._optimizer, options=OPTIONS)
        processes = gather_object([self._own_state()])
        shared = {
            "iteration": self.iteration,
            "sampler": self.sampler.state_dict(),
            "scheduler": self.step.scheduler.state_dict(),
            "skipped_in_a_row": self.step.skipped_in_a_row,
            "best": [self.best_accuracy, self.best_iteration],
        }

        def write(folder: Path) -> None:
            save_file(weights, folder / "weights.safetensors")
            save_state(folder / "optimizer.safetensors", optimizer)
            save_state(folder / "run.safetensors", {"shared": shared, "processes": processes})

        return write

    def load(self, place: Path) -> None:
        """Go back to the state that the checkpoint holds.

        Raises:
            CheckpointError: it does not fit this run.
        """
        run = load_state(place / "run.safetensors")
        processes, shared = run["processes"], run["shared"]
        if len(processes) != self.accelerator.num_processes and any(own["pending"] for own in processes):
            raise CheckpointError(
                f"{place} was saved in the midst of an iteration by {len(processes)} processes; resume it "
                f"with as many, not {self.accelerator.num_processes}"
            )
        options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
        weights: dict[str, Any] = load_file(place / "weights.safetensors")
        self._check_fit(place, weights)
        set_model_state_dict(self.model, weights, options=options)
        optimizer = load_state(place / "optimizer.safetensors")
        set_optimizer_state_dict(self.model, self._optimizer, optimizer, options=options)
        self.step.scheduler.load_state_dict(shared["scheduler"])
        self.step.skipped_in_a_row = shared["skipped_in_a_row"]
        self.sampler.load_state_dict(shared["sampler"])
        self.iteration = shared["iteration"]
        self.best_accuracy, self.best_iteration = shared["best"]
        if len(processes) == self.accelerator.num_processes:
            self._load_own_state(processes[self.accelerator.process_index])

    @property
    def _optimizer(self) -> Any:
        """The bare optimizer; torch's functions do not know accelerate's wrapper."""
        return getattr(self.step.optimizer, "optimizer", self.step.optimizer)

    def _weights(self) -> dict[str, Any]:
        """Return what is trained, on the CPU; a weight that two modules share once."""
        bare = self.accelerator.unwrap_model(self.model)
        names = [name for name, parameter in bare.named_parameters() if parameter.requires_grad]
        everything: dict[str, Any] = get_model_state_dict(self.model, options=OPTIONS)
        return {name: everything[name].contiguous() for name in names}

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
            prompts = self.reencode(saved["experience"]["examples"])
            experience = Experience.from_state(saved["experience"], prompts)
            self.pending = Pending(experience, saved["metrics"], saved["steps"])

    def _check_fit(self, place: Path, weights: Mapping[str, Any]) -> None:
        expected = self._weights()
        wrong = [
            name
            for name in {*expected, *weights}
            if name not in expected or name not in weights or expected[name].shape != weights[name].shape
        ]
        if wrong:
            raise CheckpointError(
                f"{place} holds other weights than this run trains, for instance {min(wrong)}; resume with "
                "the policy section that the run was started with, or choose another output folder"
            )
