"""Runs in parallel, one process a core; who dies is replaced and its run done again."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.study.grid import Trial

ATTEMPTS = 2
# More threads than one a process would only wait for each other; a GPU would give other numbers.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    trial: Trial | None = None


def run_all(
    trials: Sequence[Trial],
    folder: Path,
    changes: Sequence[str],
    jobs: int,
    serve: Callable[..., None],
    arguments: tuple[Any, ...] = (),
    on_done: Callable[[Trial, str | None], None] = lambda trial, failure: None,
) -> dict[Trial, str]:
    """Do all trials; return those that failed ``ATTEMPTS`` times, with the reason.

    Args:
        trials: in this order.
        folder: of the study.
        changes: config overrides for every run.
        jobs: processes.
        serve: what a process runs: (connection, *arguments), see ``worker.serve``.
        arguments: of ``serve``; importable by name in another process.
        on_done: called after each run with what went wrong, if it did for good.

    Raises:
        UserError: a run met a user's mistake; it would meet all others too.
    """
    waiting, attempts, failed = deque(trials), Counter[Trial](), dict[Trial, str]()
    workers: list[_Worker] = []
    try:
        with _environment(_ENVIRONMENT):
            while waiting or any(worker.trial for worker in workers):
                while waiting and (idle := _idle(workers, jobs, serve, arguments)):
                    idle.trial = waiting.popleft()
                    _order(idle, folder, changes)
                for worker, failure in _answers(workers):
                    trial, worker.trial = worker.trial, None
                    assert trial is not None
                    if failure is not None:
                        attempts[trial] += 1
                        if attempts[trial] < ATTEMPTS:
                            waiting.appendleft(trial)
                            continue
                        failed[trial] = failure
                    on_done(trial, failure)
                workers = [worker for worker in workers if worker.process.is_alive()]
    finally:
        for worker in workers:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join(30)
    return failed


def _idle(
    workers: list[_Worker], jobs: int, serve: Callable[..., None], arguments: tuple[Any, ...]
) -> _Worker | None:
    """Return a worker that has nothing to do, a new one where there may be more."""
    for worker in workers:
        if worker.trial is None:
            return worker
    if len(workers) >= jobs:
        return None
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_attended, args=(serve, there, *arguments), daemon=True)
    process.start()
    there.close()
    workers.append(_Worker(process, here))
    return workers[-1]


def _attended(serve: Callable[..., None], *arguments: Any) -> None:
    """Serve, and end at once when the parent does, however it ended: its successor starts the run anew."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    serve(*arguments)


def _order(worker: _Worker, folder: Path, changes: Sequence[str]) -> None:
    with suppress(OSError):  # it may have died meanwhile; reading from it will tell
        worker.connection.send((worker.trial, folder, tuple(changes)))


def _answers(workers: Sequence[_Worker]) -> Iterator[tuple[_Worker, str | None]]:
    """Wait for at least one busy worker; yield those that are done, with what went wrong."""
    busy = {worker.connection: worker for worker in workers if worker.trial}
    for connection in wait(list(busy)):
        worker = busy[connection]  # type: ignore[index]
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(30)
            yield worker, f"its process died with exit status {worker.process.exitcode}"
            continue
        if answer is not None and answer[0]:
            raise UserError(f"{worker.trial and worker.trial.name}: {answer[1]}")
        yield worker, None if answer is None else answer[1]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which processes inherit that start meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
