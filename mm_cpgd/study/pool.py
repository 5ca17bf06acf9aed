"""Parallel runs in a pool of processes; a process that dies is replaced and its run repeated."""

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
# One thread per process, because all cores are busy; no GPU, whose numbers would differ.
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
    """Run all trials; return those that failed ``ATTEMPTS`` times, with the reason.

    Args:
        trials: trials in the order in which they start.
        folder: folder of the study.
        changes: config overrides for every run.
        jobs: number of processes.
        serve: main function of a process, called with (connection, *arguments), see ``worker.serve``.
        arguments: arguments of ``serve``, which can be pickled.
        on_done: called after each run, with the reason if it failed for the last time.

    Raises:
        UserError: a run failed by a user's mistake, as all others would.
    """
    waiting, attempts, failed = deque(trials), Counter[Trial](), dict[Trial, str]()
    workers: list[_Worker] = []
    try:
        with _environment(_ENVIRONMENT):
            while waiting or any(worker.trial for worker in workers):
                while waiting and (idle := _idle_worker(workers, jobs, serve, arguments)):
                    idle.trial = waiting.popleft()
                    _send_job(idle, folder, changes)
                for worker, failure in _finished(workers):
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


def _idle_worker(
    workers: list[_Worker], jobs: int, serve: Callable[..., None], arguments: tuple[Any, ...]
) -> _Worker | None:
    """Return an idle worker, starting one if there are fewer than ``jobs``; None if all are busy."""
    for worker in workers:
        if worker.trial is None:
            return worker
    if len(workers) >= jobs:
        return None
    context = get_context("spawn")
    own_end, worker_end = context.Pipe()
    process = context.Process(
        target=_serve_while_parent_lives, args=(serve, worker_end, *arguments), daemon=True
    )
    process.start()
    worker_end.close()
    workers.append(_Worker(process, own_end))
    return workers[-1]


def _serve_while_parent_lives(serve: Callable[..., None], *arguments: Any) -> None:
    """Serve, and exit at once when the parent has ended in any way: a resumed study repeats the run."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    serve(*arguments)


def _send_job(worker: _Worker, folder: Path, changes: Sequence[str]) -> None:
    with suppress(OSError):  # it may have died; reading from it will report that
        worker.connection.send((worker.trial, folder, tuple(changes)))


def _finished(workers: Sequence[_Worker]) -> Iterator[tuple[_Worker, str | None]]:
    """Wait for at least one busy worker; yield those that have finished, with the reason of a failure."""
    busy = {worker.connection: worker for worker in workers if worker.trial}
    for connection in wait(list(busy)):
        worker = busy[connection]  # type: ignore[index]
        try:
            reply = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(30)
            yield worker, f"its process died with exit status {worker.process.exitcode}"
            continue
        if reply is not None and reply[0]:
            raise UserError(f"{worker.trial and worker.trial.name}: {reply[1]}")
        yield worker, None if reply is None else reply[1]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which processes started in the meantime inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
