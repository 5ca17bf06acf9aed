"""Worker processes that do not train, for the pool; a module with few imports, so that they start quickly."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.study.pool import run_all


def serve(connection: Connection, die_on: str = "", fail_on: str = "", mistake_on: str = "") -> None:
    """Record every job; exit at the first job of ``die_on``, fail at every job of ``fail_on``."""
    while True:
        try:
            trial, folder, changes = connection.recv()
        except EOFError:
            return
        note = Path(folder) / f"{trial.name}.{os.getpid()}.{len(list(Path(folder).iterdir()))}"
        again = any(entry.name.startswith(f"{trial.name}.") for entry in Path(folder).iterdir())
        note.write_text(" ".join([os.environ.get("OMP_NUM_THREADS", ""), *changes]))
        if trial.method == die_on and not again:
            os._exit(9)
        if trial.method == fail_on:
            connection.send((False, "a bug"))
        elif trial.method == mistake_on:
            connection.send((True, "a wrong setting"))
        else:
            connection.send(None)


def never_reply(connection: Connection) -> None:
    """Take a job, record the process and never reply."""
    _, folder, _ = connection.recv()
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def run_endless_study(folder: Path) -> None:
    """Wait for a run that never ends."""
    run_all([Trial("pg", Stress(1e-4, 1), 1)], folder, [], 1, never_reply)
