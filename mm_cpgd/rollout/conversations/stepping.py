"""Steps of environments in threads with a time limit, so that none of them can hold up or end the run."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Generic, TypeVar

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


def run_steps(
    tasks: Sequence[Callable[[], Result]], *, seconds: float, threads: int
) -> list[Result | StepFailed]:
    """Run the tasks in threads and return their results in order.

    A task beyond its time is abandoned: its thread, which cannot be ended, goes on in the background and does
    not keep the process from ending. What it returns later is not looked at.

    Args:
        tasks: each is called once.
        seconds: limit of one task, from its start on.
        threads: tasks that run at a time.

    Raises:
        UserError: an environment broke its protocol; the run cannot go on with it.
    """
    results: list[Result | StepFailed | None] = [None] * len(tasks)
    ended: queue.SimpleQueue[_Ended[Result]] = queue.SimpleQueue()
    waiting = deque(range(len(tasks)))
    deadlines: dict[int, float] = {}
    while waiting or deadlines:
        while waiting and len(deadlines) < threads:
            task = waiting.popleft()
            deadlines[task] = time.monotonic() + seconds
            Thread(target=_work, args=(task, tasks[task], ended), name="environment", daemon=True).start()
        try:
            one = ended.get(timeout=max(0.0, min(deadlines.values()) - time.monotonic()))
        except queue.Empty:
            for task in [task for task, end in deadlines.items() if end <= time.monotonic()]:
                del deadlines[task]
                results[task] = StepFailed(Status.TIMEOUT, f"no reply within {seconds:g} seconds")
            continue
        if deadlines.pop(one.task, None) is not None:  # else it was abandoned
            results[one.task] = _outcome(one)
    return [result for result in results if result is not None]


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
        return StepFailed(Status.ERROR, f"{kind}: {one.error}".splitlines()[0][:500])
    return one.result
