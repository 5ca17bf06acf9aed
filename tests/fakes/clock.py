"""Clock for tests of waiting."""

from __future__ import annotations


class Clock:
    """Clock that advances only by waiting, and records the waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)
