"""What processes of the pool do in tests, in place of training."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path


def serve(connection: Connection, die_on: str = "", fail_on: str = "", mistake_on: str = "") -> None:
    """Note every order; die at the first one of ``die_on`` unanswered, fail at every one of ``fail_on``."""
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
