"""Checks of what the processes of a run find on their machines: the run folder, and the same rows."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from data import Example
from mm_cpgd.errors import UserError
from mm_cpgd.training.resume import row_digests

# Seconds until a file that one machine has written is visible on another: NFS caches the absence of names.
VISIBLE_WITHIN = 60.0


def check_run_folder(accelerator: Accelerator, file: Path, within: float = VISIBLE_WITHIN) -> None:
    """Check that every process sees a file that the main process has written into the run folder.

    Raises:
        UserError: on all processes, if one does not see it after ``within`` seconds.
    """
    if accelerator.num_processes == 1:
        return
    own = None if _appears(file, within) else f"process {accelerator.process_index} on {socket.gethostname()}"
    blind = [one for one in gather_object([own]) if one]
    if blind:
        raise UserError(
            f"{blind[0]} does not see the run folder {file.parent} of process 0; choose an output on a file "
            "system that all machines share"
        )


def _appears(file: Path, within: float) -> bool:
    end = time.monotonic() + within
    while not file.exists():
        if time.monotonic() > end:
            return False
        time.sleep(min(1.0, within / 10))
        if file.parent.is_dir():
            os.listdir(file.parent)  # noqa: PTH208  lets a network file system look again
    return True


def check_rows(accelerator: Accelerator, what: str, examples: Sequence[Example]) -> None:
    """Check that all processes have the same rows in the same order.

    Args:
        accelerator: the run's accelerator.
        what: "training" or "held-out", for the message.
        examples: the usable rows of this process.

    Raises:
        UserError: on all processes, if one has others than the main process.
    """
    if accelerator.num_processes == 1:
        return
    own = (socket.gethostname(), len(examples), _digest(examples))
    (main_host, main_count, main_digest), *others = gather_object([own])
    for rank, (host, count, digest) in enumerate(others, start=1):
        if digest != main_digest:
            raise UserError(
                f"{what} rows: process {rank} on {host} has others than process 0 on {main_host} ({count:,} "
                f"and {main_count:,} usable rows); give every machine the same version of the data with its "
                "images, or a shared folder"
            )


def _digest(examples: Sequence[Example]) -> str:
    return hashlib.blake2b(row_digests(examples).numpy().tobytes(), digest_size=16).hexdigest()
