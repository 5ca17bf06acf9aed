"""Schedules: an option of a part that changes over the run, written in place of its number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Shape = Literal["linear", "cosine", "step"]
KEYS = ("from", "to", "shape", "begin", "until")


@dataclass(frozen=True)
class Schedule:
    """A number that goes from ``start`` to ``end`` between two points of the run and is constant elsewhere.

    With u = (progress − begin) / (until − begin), bounded to [0, 1], the share of the way is u (*linear*) or
    (1 − cos πu) / 2 (*cosine*); *step* jumps at ``until``. Written ``{from: 0.1, to: 0, shape: cosine}``.

    Attributes:
        start: value up to ``begin``.
        end: value from ``until`` on.
        shape: course between the two.
        begin: share of the run, in [0, 1].
        until: share of the run, in [0, 1].
    """

    start: float
    end: float
    shape: Shape = "linear"
    begin: float = 0.0
    until: float = 1.0

    def at(self, progress: float) -> float:
        """Return the value where the run has come to ``progress`` in [0, 1]; exact at both ends."""
        if progress >= self.until:
            return self.end
        if progress <= self.begin or self.shape == "step":
            return self.start
        share = (progress - self.begin) / (self.until - self.begin)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + share * (self.end - self.start)

    def __mul__(self, factor: float) -> Schedule:
        return Schedule(self.start * factor, self.end * factor, self.shape, self.begin, self.until)

    def __str__(self) -> str:
        between = f"{self.begin:g} to {self.until:g}"
        return f"[{self.start:g} → {self.end:g}, {self.shape}, {between} of the run]"


def is_schedule(value: Any) -> bool:
    """Return whether a config's value is written as a schedule."""
    return isinstance(value, Mapping) and {"from", "to"} <= set(value)


def schedule_of(value: Mapping[str, Any], start: float, end: float) -> Schedule:
    """Return the schedule that a config writes; its two ends are already checked.

    Raises:
        ValueError: an unknown key or shape, or points of the run that are none; says what is possible.
    """
    unknown = sorted(set(value) - set(KEYS))
    if unknown:
        raise ValueError(f"a schedule has no key {unknown[0]!r}; possible: {', '.join(KEYS)}")
    shape, begin, until = value.get("shape", "linear"), value.get("begin", 0.0), value.get("until", 1.0)
    if shape not in get_args(Shape):
        raise ValueError(f"shape = {shape!r} of the schedule; possible: {', '.join(get_args(Shape))}")
    try:
        begin, until = float(begin), float(until)
    except (TypeError, ValueError):
        raise ValueError(f"begin = {begin!r} and until = {until!r} must be shares of the run") from None
    if not 0 <= begin < until <= 1:
        raise ValueError(
            f"begin = {begin:g} and until = {until:g} must be shares of the run, 0 ≤ begin < until ≤ 1"
        )
    return Schedule(start, end, shape, begin, until)


def options_at(options: Mapping[str, Any], progress: float) -> dict[str, Any]:
    """Return options with every schedule replaced by its value."""
    return {
        key: value.at(progress) if isinstance(value, Schedule) else value for key, value in options.items()
    }


def progress_of(iteration: int, iterations: int) -> float:
    """Return (iteration − 1) / (iterations − 1): 0 in the first iteration of a run, 1 in its last."""
    return min(max((iteration - 1) / max(1, iterations - 1), 0.0), 1.0)
