"""Lock of a run folder: one run at a time writes into it.

A lock is a file ``run.lock`` that names its holder. It is made by a hard link, which is atomic on network
file systems too, and the holder renews its time while it lives. A lock is taken over if its holder is known
to be gone: its process on this host has ended, its SLURM job has been started again, or another host has not
renewed it for a long time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.tracking.files import writing

LOCK = "run.lock"
# Seconds between two renewals, and without one after which the holder on another host counts as gone.
RENEWAL = 30.0
EXPIRY = 600.0


class RunLock:
    """The lock of one folder; ``acquire`` and ``release`` are called by the main process alone."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOCK
        self._own: dict[str, Any] | None = None
        self._ended = threading.Event()

    def acquire(self) -> None:
        """Take the lock, and renew it in a thread until ``release``.

        Raises:
            UserError: another run holds it, or the folder cannot be written.
        """
        own = _holder()
        temporary = self.file.with_name(f".{LOCK}.{own['host']}.{own['pid']}.tmp")
        with writing(self.file):
            try:
                temporary.write_text(json.dumps(own), encoding="utf-8")
                self._link(temporary)
            finally:
                temporary.unlink(missing_ok=True)
        self._own = own
        threading.Thread(target=self._renew, daemon=True).start()

    def release(self) -> None:
        """Remove the lock if it is held; can be called again."""
        self._ended.set()
        if self._own is not None and _read(self.file) == self._own:
            with contextlib.suppress(OSError):
                self.file.unlink()
        self._own = None

    def _link(self, temporary: Path) -> None:
        for _ in range(3):
            try:
                os.link(temporary, self.file)
                return
            except FileExistsError:
                holder = _read(self.file)
                # By the clock of the file system, as both times are.
                age = temporary.stat().st_mtime - self._modified()
                if not _is_gone(holder, age):
                    raise self._refusal(holder) from None
                with contextlib.suppress(FileNotFoundError):
                    self.file.unlink()
        raise self._refusal(_read(self.file))

    def _modified(self) -> float:
        try:
            return self.file.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _refusal(self, holder: dict[str, Any]) -> UserError:
        pid, host, since = (holder.get(key, "?") for key in ("pid", "host", "since"))
        return UserError(
            f"{self.file.parent} is in use by another run: process {pid} on {host} since {since}; wait for "
            f"its end, or choose another output. If that process is gone, remove {self.file}"
        )

    def _renew(self) -> None:
        while not self._ended.wait(RENEWAL):
            with contextlib.suppress(OSError):
                os.utime(self.file)


def _holder() -> dict[str, Any]:
    """Return what identifies this process, on any host and after its end."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": _process_id(os.getpid()),
        "job": _job(),
        "since": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _job() -> list[str] | None:
    """Return the number of this SLURM job and how often it was put back into the queue; None elsewhere."""
    number = os.environ.get("SLURM_JOB_ID")
    return None if number is None else [number, os.environ.get("SLURM_RESTART_COUNT", "0")]


def _process_id(pid: int) -> str | None:
    """Return namespace and start time of a running process, which tell it from a later one of its number."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # ended, or no Linux
        return None
    # Field 3 of the file is the state, 22 the start time in clock ticks since the host was started.
    return None if fields[0] == "Z" else f"{namespace}/{fields[19]}"


def _is_gone(holder: dict[str, Any], age: float) -> bool:
    """Return whether a lock's holder has ended, as far as that can be known from here."""
    if age > EXPIRY:
        return True
    job, own = holder.get("job"), _job()
    if own and isinstance(job, list) and job[:1] == own[:1] and job != own:
        return True  # an earlier start of this very job, perhaps on a machine that has failed
    process = holder.get("process")
    if holder.get("host") != socket.gethostname() or not isinstance(process, str):
        return False
    if not process.startswith(f"{Path('/proc/self/ns/pid').readlink()}/"):
        return False  # in another container of the same name
    return _process_id(int(holder["pid"])) != process


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
