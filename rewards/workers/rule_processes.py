"""Rules of a user in processes of their own, each with a time limit for one completion.

A rule that hangs, ends its process, is killed or crashes costs one completion, not the run. Completions of a
rule that is fast are sent several at a time; each has the limit for itself. POSIX only.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rewards.registry import BoundRule
from rewards.verdict import Status, Verdict
from rewards.workers.pool import LineProcess, usable_cores
from rewards.workers.rule_messages import Batch, Outcome, packed

# Seconds to import the user's file and what it imports.
START_LIMIT = 300.0
# Processes of one rule; a file that imports torch needs about 300 MB in each.
MOST = 8
# Completions of a batch that may cost a process before any is scored; the others are then not tried.
PATIENCE = 8
# Seconds that the completions of one message may take as long as the rule is as fast as it was, and most of
# them: a message and its reply take some 0.1 ms, and those after one that hangs wait.
TOGETHER = 0.02
MOST_TOGETHER = 32


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
        self._seconds: float | None = None  # that a completion took of late; None after one was lost
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
        (found,) = self.score([completion], [example])
        if isinstance(found, Exception):
            raise found
        return found

    def score(
        self, completions: Sequence[str], examples: Sequence[Any], *, stop: bool = False
    ) -> list[Outcome]:
        """Score completions against their examples, by all processes.

        Args:
            completions: n texts.
            examples: n of them.
            stop: whether nothing is sent any more once one has failed.

        Returns:
            For each in order the verdict, or what calling this with it would raise.
        """
        batch = Batch(completions, examples, stop=stop)
        count = min(self.size, len(batch))
        if count < 2:
            self._score_some(batch)
        else:
            with ThreadPoolExecutor(count, thread_name_prefix="rule") as executor:
                for done in [executor.submit(self._score_some, batch) for _ in range(count)]:
                    done.result()
        return batch.results()

    def _score_some(self, batch: Batch) -> None:
        """Score completions of the batch until none is left."""
        while left := batch.take(self._together(len(batch))):
            while left:
                if batch.stopped:
                    left = batch.fail(left, RuleFailed("not tried: one before it failed"))
                elif self._lost >= PATIENCE and not self._has_scored:
                    how = f"not tried: {self._lost} completions before it ended like this: {self._how}"
                    left = batch.fail(left, RuleFailed(how))
                else:
                    left = self._send(batch, left)

    def _together(self, count: int) -> int:
        """Return how many of a batch of completions are sent in one message."""
        if self._seconds is None:
            return 1
        most = min(MOST_TOGETHER, -(-count // self.size))
        return max(1, min(most, int(TOGETHER / max(self._seconds, 1e-6))))

    def _send(self, batch: Batch, rows: Sequence[int]) -> list[int]:
        """Score these rows by one process; return those that are left if one of them has cost it."""
        rows, message = packed(batch, rows, self.limit)
        if not rows:
            return []
        with self._free:
            try:
                process = self._take()
            except RuleFailed as error:
                return batch.fail(rows[:1], error) or list(rows[1:])
            number, begun = 0, time.monotonic()
            try:
                process.send(message)
                for number, row in enumerate(rows):  # which one has cost the process
                    line = process.line(time.monotonic() + self.limit)
                    if line is None:
                        self._discard(process)
                        how = self._note_loss(f"no result within {self.limit:g} s")
                        return batch.fail([row], RuleTimeout(how)) or list(rows[number + 1 :])
                    batch.note(row, self._outcome(json.loads(line)))
            except EOFError:
                how = self._note_loss(self._ended(process))
                return batch.fail([rows[number]], RuleFailed(how)) or list(rows[number + 1 :])
            except BaseException:
                self._discard(process)
                raise
            with self._lock:
                self._idle.append(process)
                self._seconds = (time.monotonic() - begun) / len(rows)
        return []

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

    def _outcome(self, reply: dict[str, Any]) -> Outcome:
        if "error" in reply:
            return RuleFailed(reply["error"], reply["trace"])
        self._has_scored = True
        return Verdict(reply["score"], Status(reply["status"]), reply["extracted"], reply["reason"])

    def _note_loss(self, how: str) -> str:
        self._lost, self._how, self._seconds = self._lost + 1, how, None
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


_alive: weakref.WeakSet[RuleProcesses] = weakref.WeakSet()


def _close_all() -> None:
    for processes in list(_alive):
        processes.close()


def _forget_all() -> None:
    for processes in list(_alive):
        processes.forget()


atexit.register(_close_all)

os.register_at_fork(after_in_child=_forget_all)
