"""Clean interruption of a run: Ctrl-C and SIGTERM are recorded and handled at the next safe point."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator

# Called between batches of long work, equally often on all processes, with the same result on all.
ShouldStop = Callable[[], bool]


class Interrupted(Exception):
    """Work was interrupted between two batches; its partial results are discarded."""


def never() -> bool:
    """Return False: never stop."""
    return False


def check(should_stop: ShouldStop) -> None:
    """Raise ``Interrupted`` if a stop is requested."""
    if should_stop():
        raise Interrupted


def requested() -> bool:
    """Return whether this process was signalled; another than ``StopRequest.wanted`` no matter of all.

    For what waits long without the other processes; whoever ends for it raises ``Interrupted``, which has to
    be raised on all of them (``distributed.together``).
    """
    return any(one.signal for one in _ACTIVE)


# Seconds that a second Ctrl-C leaves for an orderly end; then the process ends whatever it is doing.
GRACE = 2.0


class StopRequest:
    """Context manager that catches SIGINT and SIGTERM; a second Ctrl-C stops at once.

    If the block has not ended ``GRACE`` seconds after a second Ctrl-C, the process does: the main thread may
    be in a call that never returns (a collective whose partner is gone), or wait for a thread in which a rule
    hangs.

    Attributes:
        signal: number of the caught signal, 0 for none.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal = 0
        self._before: dict[int, object] = {}
        self._wakeup = -1
        self._wakeup_before = -1
        self._ended = threading.Event()

    def __enter__(self) -> StopRequest:
        _ACTIVE.append(self)
        # Handlers can only be set in the main thread; in others the caller handles signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
            receiver, self._wakeup = os.pipe()
            os.set_blocking(self._wakeup, False)
            self._wakeup_before = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
            threading.Thread(target=_watch, args=(receiver, self._ended), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ACTIVE.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._wakeup)
            self._wakeup = -1
            self._ended.set()

    def wanted(self) -> bool:
        """Return whether any process was signalled; the result is the same on all processes."""
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([self.signal], device=self.accelerator.device)
            self.signal = int(self.accelerator.gather(mine).max())
        return self.signal != 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


# Those whose block is being carried out.
_ACTIVE: list[StopRequest] = []


def _watch(receiver: int, ended: threading.Event) -> None:
    """End the process some time after the second SIGINT; the pipe gets a byte with each signal's number.

    The bytes are written by the signal handler in C, and so also while the main thread runs no Python code.
    """
    interrupts = 0
    with os.fdopen(receiver, "rb", buffering=0) as numbers:
        while interrupts < 2 and (number := numbers.read(1)):
            interrupts += number[0] == signal.SIGINT
        # The pipe stays open meanwhile: a third signal may arrive.
        if interrupts < 2 or ended.wait(GRACE):
            return
    sys.stderr.write("mm-cpgd: interrupted twice, ended without a checkpoint\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT)  # child processes end with their pipes
