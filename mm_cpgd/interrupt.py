"""Clean interruption of a run: Ctrl-C and SIGTERM are recorded and handled at the next safe point."""

from __future__ import annotations

import signal
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


class StopRequest:
    """Context manager that catches SIGINT and SIGTERM; a second Ctrl-C stops at once.

    Attributes:
        signal: number of the caught signal, 0 for none.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        # Handlers can only be set in the main thread; in others the caller handles signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

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
