"""Pool of worker processes for slow comparisons, killed and replaced at their time limit; a map in threads.

Workers are plain subprocesses connected by pipes, not ``multiprocessing`` children: those would import the
caller's main script again, and are forbidden in daemonic processes (data loader workers). The parent uses no
signals, so any thread may send requests. A worker ends when its pipe closes, so none outlives its parent,
however that ends. POSIX only.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rewards.math.decide import Incomparable
from rewards.verdict import RuleError
from rewards.workers.worker import MEMORY

Item = TypeVar("Item")
Mapped = TypeVar("Mapped")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[Item], Mapped], items: Iterable[Item]) -> list[Mapped]:
    """Apply ``function`` to every item, in one thread per usable core; results are in the items' order.

    Threads suffice: slow comparisons run in worker processes, for which a thread only waits.
    """
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix="rewards") as executor:
        return list(executor.map(function, items))


_START_LIMIT = 60.0
_ATTEMPTS = 2
_ROOT = str(Path(__file__).resolve().parents[2])


class PoolError(RuleError):
    """The worker processes cannot be started or fail; a fault of the installation, not of an answer."""


class OutOfTime(Exception):
    """The comparison exceeded its limit of time or memory; the message says which."""


class LineProcess:
    """A Python process that replies with one line to each request; both over pipes. Not thread-safe.

    Args:
        code: Python code that the process runs; names of this project can be imported.
        stderr: where its error output goes; None: to this process's.
    """

    def __init__(self, code: str, stderr: int | None) -> None:
        path = [_ROOT, *(entry for entry in sys.path if entry)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,  # a buffer's lock, if held by another thread at a fork, would block the child forever
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._received = b""

    def line(self, deadline: float) -> bytes | None:
        """Return the next reply, None after the deadline. Raises ``EOFError`` if the process has ended."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        poll = select.poll()  # unlike select.select, not limited to small descriptors
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._received:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not poll.poll(1000 * remaining):
                return None
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise EOFError
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def send(self, request: bytes) -> None:
        """Write a request. Raises ``EOFError`` if the process has ended."""
        assert self.process.stdin is not None
        try:
            left = memoryview(request)
            while left:
                left = left[os.write(self.process.stdin.fileno(), left) :]
        except BrokenPipeError:
            raise EOFError from None

    def kill(self) -> None:
        """End the process now and reap it."""
        self.process.kill()
        self.close()
        self.process.wait()

    def close(self) -> None:
        """Close the parent's ends of the pipes, upon which an idle process ends."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def forget(self) -> None:
        """In a forked child: close the pipes of a process that is the parent's."""
        self.process.returncode = 0  # not this process's child: nothing to reap
        self.close()


class _Worker(LineProcess):
    """Process that compares answers by sympy."""

    def __init__(self, memory: int) -> None:
        super().__init__(f"from rewards.workers.worker import main; main({memory})", subprocess.DEVNULL)
        self.ready = False

    def wait_until_ready(self) -> None:
        """Block until sympy is loaded. Raises ``PoolError`` if that fails, ``EOFError`` if it was killed."""
        if self.ready:
            return
        reply: dict[str, object] = {}
        try:
            line = self.line(time.monotonic() + _START_LIMIT)
            reply = json.loads(line) if line else {}
        except EOFError:
            if self.process.wait() < 0:
                raise
        if "broken" in reply:
            raise PoolError(
                f"sympy does not work in {sys.executable}, so that no answer that needs it can be scored: "
                f"{reply['broken']}; reinstall it: {sys.executable} -m pip install --force-reinstall sympy"
            )
        if not reply.get("ready"):
            raise PoolError(
                "a rewards worker did not start; run `python -c 'import rewards.math.symbolic'` to see why"
            )
        self.ready = True

    def ask(self, request: dict[str, object], limit: float) -> dict[str, object] | None:
        """Return the reply to a request, None after ``limit`` s. Raises ``EOFError`` if the process died."""
        self.send(json.dumps({**request, "limit": limit}).encode() + b"\n")
        line = self.line(time.monotonic() + limit)
        return None if line is None else json.loads(line)


class Pool:
    """Pool of at most ``size`` workers, started when first needed; thread-safe.

    Args:
        size: number of concurrent comparisons; by default one per usable core.
        memory: address space of each worker in bytes.
    """

    def __init__(self, size: int | None = None, memory: int = MEMORY) -> None:
        self.size = size or usable_cores()
        self.memory = memory
        self._reset()

    def _reset(self) -> None:
        self._free = threading.BoundedSemaphore(self.size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    def _start(self) -> _Worker:
        worker = _Worker(self.memory)
        self._all.add(worker)
        return worker

    def _take(self) -> _Worker:
        """Return the worker used last; a spare one is kept, ready for when another is killed."""
        with self._lock:
            self._drop_dead()
            worker = self._idle.pop() if self._idle else self._start()
            if not self._idle and len(self._all) <= self.size:
                self._idle.append(self._start())
            return worker

    def _drop_dead(self) -> None:
        """Remove idle workers that were ended from outside."""
        for worker in [w for w in self._idle if w.process.poll() is not None]:
            worker.close()
            self._idle.remove(worker)
            self._all.discard(worker)

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        with self._lock:
            self._all.discard(worker)

    def equal(self, answer: str, gold: str, limit: float, ordered: bool = True) -> bool:
        """Return whether two bare answers are equal.

        Raises:
            Incomparable: sympy raised on one of the sides.
            OutOfTime: the comparison exceeded ``limit`` seconds or the worker's memory.
            PoolError: workers cannot be started, or fail for a reason other than the answer.
        """
        with self._free:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(EOFError):
                    return self._ask_one({"answer": answer, "gold": gold, "ordered": ordered}, limit)
        raise OutOfTime(f"{_ATTEMPTS} worker processes ended during it, out of memory or by a signal")

    def _take_ready(self) -> _Worker:
        for _ in range(self.size + 2):
            worker = self._take()
            try:
                worker.wait_until_ready()
                return worker
            except EOFError:
                self._discard(worker)
            except BaseException:
                self._discard(worker)
                raise
        raise PoolError("the rewards workers are killed before they can start; free some memory")

    def _ask_one(self, request: dict[str, object], limit: float) -> bool:
        worker = self._take_ready()
        reusable = False
        try:
            reply = worker.ask(request, limit)
            reusable = reply is not None and "exhausted" not in reply
        finally:
            if reusable:
                self._give_back(worker)
            else:
                self._discard(worker)
        return _result_of(reply, limit)

    def warm_up(self) -> None:
        """Start a worker and a spare one without waiting, so that the first comparison finds them ready."""
        with self._lock:
            self._drop_dead()
            while len(self._all) < min(2, self.size + 1):
                self._idle.append(self._start())

    def close(self) -> None:
        """Kill every worker. The pool can be used again afterwards."""
        with self._lock:
            workers, self._all, self._idle = self._all, set(), []
        for worker in workers:
            worker.kill()

    def forget(self) -> None:
        """In a forked child, drop the parent's workers; new ones are started when needed."""
        for worker in self._all:
            worker.forget()
        self._reset()


def _result_of(reply: dict[str, object] | None, limit: float) -> bool:
    if reply is None:
        raise OutOfTime(f"not decided within {limit:g} s")
    if "exhausted" in reply:
        raise OutOfTime(str(reply["exhausted"]))
    if "incomparable" in reply:
        raise Incomparable(str(reply["incomparable"]))
    if "error" in reply:
        raise PoolError(f"the comparison failed: {reply['error']}")
    return bool(reply["equal"])


_shared = Pool()
atexit.register(_shared.close)
os.register_at_fork(after_in_child=_shared.forget)


def shared_pool() -> Pool:
    """Return the pool of this process; it starts no worker before the first request."""
    return _shared
