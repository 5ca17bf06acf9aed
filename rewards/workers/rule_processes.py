"""Rules of a user in processes of their own, each with a time limit for one completion.

A rule that hangs, ends its process, is killed or crashes costs one completion, not the run. POSIX only.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import threading
import time
import weakref
from dataclasses import is_dataclass, replace
from typing import Any

from rewards.registry import BoundRule
from rewards.verdict import Status, Verdict
from rewards.workers.pool import LineProcess, usable_cores

# Seconds to import the user's file and what it imports.
START_LIMIT = 300.0
# Processes of one rule; a file that imports torch needs about 300 MB in each.
MOST = 8
# Completions of a batch that may cost a process before any is scored; the others are then not tried.
PATIENCE = 8


class RuleFailed(Exception):
    """The rule failed on a completion; ``trace`` is its traceback, empty where there is none."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class RuleTimeout(RuleFailed):
    """The rule exceeded its time limit."""


class RuleProcesses:
    """Processes that score completions with one rule; started when needed, killed at the limit. Thread-safe.

    Each process imports the rule's file itself, so a rule that keeps a state has one in each.

    Args:
        rule: a rule that another process finds by its reference.
        limit: seconds for one completion.
        size: largest number of processes; None: one per usable core, at most 8.
    """

    def __init__(self, rule: BoundRule, limit: float, size: int | None = None) -> None:
        self.rule = rule
        self.limit = limit
        self.size = size or min(usable_cores(), MOST)
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        self._free = threading.BoundedSemaphore(self.size)
        self._lock = threading.Lock()
        self._idle: list[LineProcess] = []
        self._all: set[LineProcess] = set()
        self.begin()

    def begin(self) -> None:
        """Begin a batch of completions, all of which are tried again."""
        self._has_scored = False
        self._lost = 0
        self._how = ""

    def __call__(self, completion: str, example: Any) -> Verdict:
        """Score one completion.

        Raises:
            RuleFailed: the rule raised, returned no score, or ended its process.
            RuleTimeout: it took longer than the limit.
        """
        if self._lost >= PATIENCE and not self._has_scored:
            raise RuleFailed(f"not tried: {self._lost} completions before it ended like this: {self._how}")
        with self._free:
            process = self._take()
            try:
                process.send(_pickled((self.limit, completion, example)))
                line = process.line(time.monotonic() + self.limit)
            except EOFError:
                raise RuleFailed(self._note_loss(self._ended(process))) from None
            except BaseException:
                self._discard(process)
                raise
            if line is None:
                self._discard(process)
                raise RuleTimeout(self._note_loss(f"no result within {self.limit:g} s"))
            with self._lock:
                self._idle.append(process)
        return self._verdict(json.loads(line))

    def close(self) -> None:
        """Kill all processes. They are started again when needed."""
        with self._lock:
            processes, self._all, self._idle = self._all, set(), []
        for process in processes:
            process.kill()

    def forget(self) -> None:
        """In a forked child, drop the parent's processes."""
        for process in self._all:
            process.forget()
        self._reset()

    def _verdict(self, reply: dict[str, Any]) -> Verdict:
        if "error" in reply:
            raise RuleFailed(reply["error"], reply["trace"])
        self._has_scored = True
        return Verdict(reply["score"], Status(reply["status"]), reply["extracted"], reply["reason"])

    def _note_loss(self, how: str) -> str:
        self._lost, self._how = self._lost + 1, how
        return how

    def _take(self) -> LineProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.process.poll() is None:
                    return process
                self._all.discard(process)
                process.close()
        return self._start()

    def _start(self) -> LineProcess:
        process = LineProcess("from rewards.workers.rule_worker import main; main()", None)
        with self._lock:
            self._all.add(process)
        try:
            process.send(pickle.dumps((self.rule.reference, self.rule.options)))
            line = process.line(time.monotonic() + START_LIMIT)
        except EOFError:
            raise RuleFailed(
                f"its file ends the process when it is imported ({self._ended(process)})"
            ) from None
        except BaseException:
            self._discard(process)
            raise
        reply = {"error": f"its file was not imported within {START_LIMIT:g} s", "trace": ""}
        if line is not None:
            reply = json.loads(line)
        if "error" in reply:
            self._discard(process)
            raise RuleFailed(reply["error"], reply["trace"])
        return process

    def _ended(self, process: LineProcess) -> str:
        """Return how a process ended, and drop it."""
        try:
            status = process.process.wait(timeout=5)
        finally:
            self._discard(process)
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return f"the rule ended its process {how}"

    def _discard(self, process: LineProcess) -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)


def _pickled(request: tuple[float, str, Any]) -> bytes:
    limit, completion, example = request
    try:
        return pickle.dumps(request)
    except Exception:
        if not is_dataclass(example) or isinstance(example, type) or not hasattr(example, "images"):
            raise
        # Some images cannot be opened in another process; a rule that only reads the text does not need them.
        changed = {"images": tuple(replace(one, load=_Unavailable(one.origin)) for one in example.images)}
        if getattr(example, "videos", ()):
            videos = getattr(example, "videos")  # noqa: B009  # rules may get examples without
            changed["videos"] = tuple(replace(one, source=_Unavailable(one.origin)) for one in videos)
        return pickle.dumps((limit, completion, replace(example, **changed)))


class _Unavailable:
    """Stands for an image or a video that only the trainer's process can open."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def __call__(self) -> Any:
        raise RuntimeError(
            f"image {self.origin} cannot be opened in the rule's process; set the reward's timeout to null, "
            "then the rule runs in the trainer's"
        )


_alive: weakref.WeakSet[RuleProcesses] = weakref.WeakSet()


def _close_all() -> None:
    for processes in list(_alive):
        processes.close()


def _forget_all() -> None:
    for processes in list(_alive):
        processes.forget()


atexit.register(_close_all)

os.register_at_fork(after_in_child=_forget_all)
