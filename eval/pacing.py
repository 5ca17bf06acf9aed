"""How many requests a minute, across threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock


class Pace:
    """Lets callers through one after the other, evenly spaced, so that no minute sees more than its number.

    Args:
        per_minute: how many; None for no limit.
        clock: seconds that only grow.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock, self._next = Lock(), clock()

    def wait(self) -> None:
        """Return when the caller's turn has come."""
        while (seconds := self._booked()) > 0:
            self._sleep(seconds)

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long: the server asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def _booked(self) -> float:
        """Take the turn if it has come (0), else return the seconds until the next one may."""
        with self._lock:
            now = self._clock()
            if now < self._next:
                return self._next - now
            self._next = now + self._gap
            return 0.0
