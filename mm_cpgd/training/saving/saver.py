"""Saving of checkpoints: by the main process, or by all processes if weights are sharded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.checkpoint.folder import (
    abandon_checkpoint,
    begin_checkpoint,
    finish_checkpoint,
    not_saved,
    save_checkpoint,
)
from mm_cpgd.checkpoint.shards import write_shards
from mm_cpgd.distributed import on_main, together
from mm_cpgd.policy.sharding.tensors import local_value, with_layout
from mm_cpgd.training.saving.shards import FOLDER
from mm_cpgd.training.state import TrainingState


class CheckpointSaver:
    """Writes checkpoints, complete or not at all.

    Args:
        accelerator: the run's accelerator.
        folder: the run's ``checkpoints`` folder.
        keep: number of checkpoints to keep.
        background: write sharded weights from a copy in CPU memory while training goes on.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, keep: int, *, background: bool) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.keep = keep
        self.background = background
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._group: Any = None

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint; with ``background``, its files are complete after ``wait``.

        Raises:
            CheckpointError: on all processes, if one of them cannot write this checkpoint or, with
                ``background``, the one before; earlier checkpoints stay.
        """
        self.wait()
        protect = [] if state.best_iteration is None else [state.best_iteration]
        write, tensors = state.writer(), state.shards()
        if tensors is None:
            on_main(
                self.accelerator,
                lambda: save_checkpoint(self.folder, state.number, write, self.keep, protect),
            )
            return
        number = state.number
        temporary = on_main(self.accelerator, lambda: begin_checkpoint(self.folder, number))
        if not self.background:
            save = partial(self._write, temporary, number, tensors, write, protect, None)
            together(self.accelerator, save)
            return
        copies = {name: _copied(value) for name, value in tensors.items()}
        if self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")

        def work() -> None:
            try:
                self._write(temporary, number, copies, write, protect, self._group)
            except BaseException as error:  # raised again by ``wait``, on the main thread
                self._problem = error

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written; called on all processes.

        Raises:
            CheckpointError: on all processes, if one of them cannot write it.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread, problem, self._problem = None, self._problem, None

        def check() -> None:
            if problem is not None:
                raise problem

        together(self.accelerator, check)

    def _write(
        self,
        temporary: Path,
        number: int,
        tensors: Mapping[str, Tensor],
        write: Callable[[Path], None],
        protect: Collection[int],
        group: Any,
    ) -> None:
        """Write this process's parts, and on the main process all the rest."""
        try:
            with not_saved(temporary.parent / f"step-{number}"):
                write_shards(temporary / FOLDER, tensors, group)
        except BaseException:
            if self.accelerator.is_main_process:
                abandon_checkpoint(temporary)
            raise
        if self.accelerator.is_main_process:
            finish_checkpoint(temporary, number, write, self.keep, protect)


def _copied(value: Tensor) -> Tensor:
    """Return a copy in CPU memory that is sharded likewise."""
    return with_layout(local_value(value).to("cpu", copy=True), value)
