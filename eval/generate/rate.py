"""Rate of requests to a server, and the waits that it asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Lock

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry


class RateLimiter:
    """Limits requests to a rate by spacing them evenly, over all threads.

    Args:
        per_minute: requests per minute; None for no limit.
        clock: monotonic, in seconds.
        sleep: waits the given number of seconds.
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
        """Block until the caller may send its request."""
        while (seconds := self._reserve()) > 0:
            self._sleep(seconds)

    @property
    def blocked(self) -> float:
        """Seconds until a caller may send its request, 0 if it may now."""
        with self._lock:
            return max(0.0, self._next - self._clock())

    def pause(self, seconds: float) -> None:
        """Block all callers for this many seconds, as the server requested."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def _reserve(self) -> float:
        """Reserve the next slot and return 0 if it is free, else return the seconds until it is."""
        with self._lock:
            now = self._clock()
            if now < self._next:
                return self._next - now
            self._next = now + self._gap
            return 0.0


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, None without such a header.

    ``Retry-After`` is a number or a date (RFC 9110); ``retry-after-ms``, of some hosted APIs, is more exact.
    """
    milliseconds = headers.get("retry-after-ms", "")
    if milliseconds.isascii() and milliseconds.isdigit():
        return int(milliseconds[:12]) / 1000
    value = headers.get("Retry-After")
    if not value:
        return None
    try:
        return max(0.0, Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return None
