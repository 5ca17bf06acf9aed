"""Copies of what is trained and of the optimizer's moments, to go back to; in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.processes import on_main
from mm_cpgd.state import load_state, save_state
from mm_cpgd.tracking.files import writing

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
