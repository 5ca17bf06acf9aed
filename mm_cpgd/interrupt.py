"""Clean interruption of a run: Ctrl-C and SIGTERM are noted and acted on at the next safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator

# Asked between batches of long work, equally often by all processes, and the same answer for all.
ShouldStop = Callable[[], bool]


class Interrupted(Exception):
    """Long work was broken off between two batches; what it had begun does not count."""


def never() -> bool:
    """Do not stop."""
    return False


def check(should_stop: ShouldStop) -> None:
    """Raise ``Interrupted`` if the run is to stop."""
    if should_stop():
        raise Interrupted


class StopRequest:
    """Catches SIGINT and SIGTERM while it is entered; a second Ctrl-C stops at once.

    Attributes:
        signal: the number that was caught, 0 for none.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        # Handlers can only be set in the main thread; elsewhere whoever runs the thread decides.
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
        """Whether any process was asked to stop; all processes get the same answer."""
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([self.signal], device=self.accelerator.device)
            self.signal = int(self.accelerator.gather(mine).max())
        return self.signal != 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
