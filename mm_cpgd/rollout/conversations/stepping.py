"""Steps of environments in threads with a time limit, so that none of them can hold up or end the run."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Generic, TypeVar

from mm_cpgd.environments.checks import place_of
from mm_cpgd.errors import UserError
from rewards import Status

Result = TypeVar("Result")


@dataclass(frozen=True)
class StepFailed:
    """A step that raised or took too long.

    Attributes:
        status: ``ERROR`` or ``TIMEOUT``.
        reason: one line that a person understands.
    """

    status: Status
    reason: str


@dataclass(frozen=True)
class _Ended(Generic[Result]):
    """Task that has ended, with its result or its error."""

    task: int
    result: Result | None
    error: BaseException | None


class StepPool(Generic[Result]):
    """Runs tasks in threads and hands out their results as they end.

    A task beyond its time is abandoned: its thread, which cannot be ended, goes on in the background and does
    not keep the process from ending. What it returns later is not looked at.

    Args:
        seconds: limit of one task, from its start on.
        threads: tasks that run at a time.
    """

    def __init__(self, *, seconds: float, threads: int) -> None:
        self.seconds = seconds
        self.threads = threads
        self._ended: queue.SimpleQueue[_Ended[Result]] = queue.SimpleQueue()
        self._waiting: deque[tuple[int, Callable[[], Result]]] = deque()
        self._deadlines: dict[int, float] = {}

    @property
    def busy(self) -> bool:
        """Whether a task has no result yet."""
        return bool(self._waiting or self._deadlines)

    def submit(self, number: int, task: Callable[[], Result]) -> None:
        """Run a task as soon as a thread is free; no other task without a result may have its number."""
        self._waiting.append((number, task))
        self._start()

    def poll(self, *, wait: bool) -> list[tuple[int, Result | StepFailed]]:
        """Return the numbers and results of tasks that have ended since, in that order.

        Args:
            wait: for at least one, if there are any tasks.

        Raises:
            UserError: an environment broke its protocol; the run cannot go on with it.
        """
        found: list[tuple[int, Result | StepFailed]] = []
        while not found and self._deadlines:
            found += self._next(wait=wait)
            if not wait:
                break
        while more := self._next(wait=False):
            found += more
        return found

    def _start(self) -> None:
        while self._waiting and len(self._deadlines) < self.threads:
            number, task = self._waiting.popleft()
            self._deadlines[number] = time.monotonic() + self.seconds
            Thread(target=_work, args=(number, task, self._ended), name="environment", daemon=True).start()

    def _next(self, *, wait: bool) -> list[tuple[int, Result | StepFailed]]:
        """Return the next task that has ended, or those that are overdue; none if it has been abandoned."""
        if not self._deadlines:
            return []
        left = max(0.0, min(self._deadlines.values()) - time.monotonic())
        found: list[tuple[int, Result | StepFailed]] = []
        try:
            one = self._ended.get(timeout=left) if wait and left else self._ended.get_nowait()
        except queue.Empty:
            reason = f"no reply within {self.seconds:g} seconds"
            overdue = [number for number, end in self._deadlines.items() if end <= time.monotonic()]
            found = [(number, StepFailed(Status.TIMEOUT, reason)) for number in overdue]
        else:
            if one.task in self._deadlines:  # else it was abandoned
                outcome: Result | StepFailed = _outcome(one)
                found = [(one.task, outcome)]
        for number, _ in found:
            del self._deadlines[number]
        self._start()
        return found


def run_steps(
    tasks: Sequence[Callable[[], Result]], *, seconds: float, threads: int
) -> list[Result | StepFailed]:
    """Run the tasks in threads, as ``StepPool`` does, and return their results in order.

    Args:
        tasks: each is called once.
        seconds: limit of one task, from its start on.
        threads: tasks that run at a time.

    Raises:
        UserError: an environment broke its protocol; the run cannot go on with it.
    """
    pool: StepPool[Result] = StepPool(seconds=seconds, threads=threads)
    for number, task in enumerate(tasks):
        pool.submit(number, task)
    results: dict[int, Result | StepFailed] = {}
    while pool.busy:
        results.update(pool.poll(wait=True))
    return [results[number] for number in range(len(tasks))]


def _work(task: int, work: Callable[[], Result], ended: queue.SimpleQueue[_Ended[Result]]) -> None:
    try:
        ended.put(_Ended(task, work(), None))
    except BaseException as error:
        ended.put(_Ended(task, None, error))


def _outcome(one: _Ended[Result]) -> Result | StepFailed:
    if isinstance(one.error, UserError):
        raise one.error
    if one.error is not None or one.result is None:
        kind = type(one.error).__name__
        place = "" if one.error is None else place_of(one.error)
        return StepFailed(Status.ERROR, f"{kind}: {one.error}".splitlines()[0][:500] + place)
    return one.result
