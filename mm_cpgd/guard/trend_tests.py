"""Statistical tests of one metric against its own recent history; each is a pure function of the rows.

A test returns a ``Finding`` whose strength is 1 at its threshold, or None where there are too few values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeVar

# Standard deviation of a normal distribution over its median absolute deviation.
_MAD_TO_DEVIATION = 1.4826
_TINY = 1e-12
Item = TypeVar("Item")


@dataclass(frozen=True)
class Finding:
    """Result of a test.

    Attributes:
        strength: progress towards the threshold, 1 at it.
        text: the numbers, for the alarm.
    """

    strength: float
    text: str


@dataclass(frozen=True)
class Above:
    """The metric has been at or above ``limit`` in each of the last ``over`` iterations."""

    metric: str
    limit: float
    over: int

    def __str__(self) -> str:
        return f"{self.metric} ≥ {self.limit:g}, {_times(self.over)}"

    def __call__(self, history: History) -> Finding | None:
        """Test the newest row."""
        last = _values(history, self.metric)[-self.over :]
        if len(last) < self.over:
            return None
        return Finding(min(last) / self.limit, f"{self.metric} {last[-1]:.3g}, limit {self.limit:g}")


@dataclass(frozen=True)
class Falls:
    """The mean of the last ``over`` values is below the best such mean of the recent past.

    It must be below by ``sigmas`` standard deviations of the sampling noise of that difference, and by the
    share ``share`` of the best: a fall must be both significant and large.
    """

    metric: str
    sigmas: float
    share: float
    over: int = 2

    def __str__(self) -> str:
        return f"{self.metric} {self.share:.0%} and {self.sigmas:g} σ below its best, {_mean_of(self.over)}"

    def __call__(self, history: History) -> Finding | None:
        """Test the newest row."""
        fall = fall_of(history, self.metric, self.over)
        if fall is None:
            return None
        return Finding(min(fall.sigmas / self.sigmas, fall.share / self.share), fall.text)


@dataclass(frozen=True)
class Rises:
    """The geometric mean of the last ``over`` values is ``factor`` times the lowest of the recent past.

    Attributes:
        least: the mean must reach this much, too; below it a rise means nothing.
    """

    metric: str
    factor: float
    over: int = 2
    least: float = 0.0

    def __str__(self) -> str:
        least = f" and ≥ {self.least:g}" if self.least else ""
        return f"{self.metric} ≥ {self.factor:g} × its lowest{least}, {_mean_of(self.over)}"

    def __call__(self, history: History) -> Finding | None:
        """Test the newest row."""
        logs = _logs(history, self.metric)
        before, last = _split(logs, self.over)
        if len(before) < self.over:
            return None
        now, lowest = fmean(last), min(fmean(window) for window in _windows(before, self.over))
        text = f"{self.metric} {math.exp(now):.3g}, was {math.exp(lowest):.3g} recently"
        strength = (now - lowest) / math.log(self.factor)
        return Finding(min(strength, math.exp(now) / self.least) if self.least else strength, text)


@dataclass(frozen=True)
class Jumps:
    """Each of the last ``over`` values is far from the median of the recent past, on the same side.

    Far means, on a logarithmic scale, by ``deviations`` robust standard deviations (from the median absolute
    deviation, at least ``floor``: a nearly constant metric must not alarm on a tiny change) and by
    ``factor``. A steady climb or fall widens the spread as it moves the median, so it is not a jump.

    Attributes:
        up: True: above the median; False: below it.
        min_history: earlier values that are needed.
    """

    metric: str
    deviations: float
    factor: float
    over: int = 2
    up: bool = True
    floor: float = 0.15
    min_history: int = 5

    def __str__(self) -> str:
        side = f"≥ {self.factor:g} ×" if self.up else f"≤ 1/{self.factor:g} of"
        return f"{self.metric} {side} its median and {self.deviations:g} MAD away, {_times(self.over)}"

    def __call__(self, history: History) -> Finding | None:
        """Test the newest row."""
        before, last = _split(_logs(history, self.metric), self.over)
        if len(before) < self.min_history:
            return None
        center = median(before)
        spread = max(_MAD_TO_DEVIATION * median(abs(x - center) for x in before), self.floor)
        nearest = min((x - center) if self.up else (center - x) for x in last)
        text = f"{self.metric} {math.exp(last[-1]):.3g}, usually {math.exp(center):.3g}"
        return Finding(min(nearest / spread / self.deviations, nearest / math.log(self.factor)), text)


Test = Above | Falls | Rises | Jumps


@dataclass(frozen=True)
class Fall:
    """A fall from the recent best: in standard deviations of its noise, and as a share of that best.

    The best of k independent means is by chance alone too high by √(2 ln k) of their deviations (for large
    k); that much, √(ln k) in deviations of the difference, is subtracted.

    Attributes:
        sigmas: size of the fall in standard deviations of its noise.
        share: size of the fall as a share of the best.
        text: the numbers, for the alarm.
    """

    sigmas: float
    share: float
    text: str


def fall_of(history: History, metric: str, over: int) -> Fall | None:
    """Measure how far the mean of the last ``over`` values is below the best earlier one; None: too few."""
    points = history.recent(metric)
    before, last = points[-over - WINDOW : -over], points[-over:]
    if len(before) < over:
        return None
    windows = _windows(before, over)
    best = max(windows, key=_mean)
    high, low = _mean(best), _mean(last)
    noise = math.sqrt(_variance(best, metric, history) + _variance(last, metric, history))
    text = f"{metric} {low:.3g}, was {high:.3g} at its recent best"
    by_chance = math.sqrt(math.log(max(1.0, len(windows) / over)))
    return Fall((high - low) / max(noise, _TINY) - by_chance, (high - low) / max(abs(high), _TINY), text)


def _times(over: int) -> str:
    return "once" if over == 1 else f"{over} iterations in a row"


def _mean_of(over: int) -> str:
    return "in one" if over == 1 else f"mean of {over}"


def _windows(values: Sequence[Item], over: int) -> list[Sequence[Item]]:
    """Return all windows of ``over`` consecutive values."""
    return [values[i : i + over] for i in range(len(values) - over + 1)]


def _mean(points: Sequence[tuple[float, Row]]) -> float:
    return fmean(value for value, _ in points)


def _variance(points: Sequence[tuple[float, Row]], metric: str, history: History) -> float:
    """Return the variance of the mean of these rows' means."""
    parts = (variance_of_mean(row, metric, value, history.completions) for value, row in points)
    return sum(parts) / len(points) ** 2


def _values(history: History, metric: str) -> list[float]:
    return [value for value, _ in history.recent(metric)]


def _logs(history: History, metric: str) -> list[float]:
    """Return logarithms of the values; a zero (gradient without any signal) has no scale and is left out."""
    values = _values(history, metric)
    if not values or values[-1] <= 0:
        return []
    return [math.log(value) for value in values if value > 0]


def _split(values: Sequence[float], over: int) -> tuple[Sequence[float], Sequence[float]]:
    return values[-over - WINDOW : -over], values[-over:]


Row = Mapping[str, Any]

WINDOW = 16
"""Iterations that count as the recent past."""
_KEPT_ROWS = WINDOW + 4
_KEPT_EVALUATIONS = 8
# Correlation between completions of one prompt; 0 would make them independent draws.
CORRELATION = 0.5
HELD_OUT = "eval/accuracy"


@dataclass(frozen=True)
class History:
    """Rows that the tests read, oldest first.

    Attributes:
        rows: finished iterations; null and NaN count as absent metrics.
        completions: G, completions per prompt.
    """

    rows: Sequence[Row]
    completions: int = 8

    def recent(self, metric: str) -> list[tuple[float, Row]]:
        """Return the last values of a metric with their rows; none if the newest row lacks it."""
        if not self.rows or value_of(self.rows[-1], metric) is None:
            return []
        rows = self.rows if metric == HELD_OUT else self.rows[-_KEPT_ROWS:]
        found = ((value_of(row, metric), row) for row in rows)
        return [(value, row) for value, row in found if value is not None]


def trim(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that ``watch`` needs: the newest, and the last earlier ones with an evaluation."""
    earlier = [row for row in rows[:-_KEPT_ROWS] if value_of(row, HELD_OUT) is not None]
    return [*earlier[-_KEPT_EVALUATIONS:], *rows[-_KEPT_ROWS:]]


def value_of(row: Row, metric: str) -> float | None:
    """Return the finite number in a row, or None."""
    value = row.get(metric)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def variance_of_mean(row: Row, metric: str, value: float, completions: int) -> float:
    """Return the variance of a row's mean due to sampling alone.

    The completions of a prompt are correlated: n of them count as n/(1 + (G − 1)ρ) independent ones
    (design effect; Kish 1965) with ρ = ``CORRELATION``. Held-out completions are greedy, one per question.
    """
    if metric == HELD_OUT:
        n = value_of(row, "eval/n") or 100.0
        return _variance_of_share(value, n) / n
    n = _sampled(row) / (1 + (completions - 1) * CORRELATION)
    spread = value_of(row, "reward/std")
    if metric == "reward/mean" and spread is not None:
        return spread**2 / n
    return _variance_of_share(value, n) / n


def _sampled(row: Row) -> float:
    """Return the number of completions of an iteration."""
    tokens, length = value_of(row, "tokens/sampled"), value_of(row, "completion/length_mean")
    return tokens / length if tokens and length else 64.0


def _variance_of_share(share: float, n: float) -> float:
    """Return p(1 − p) with p shrunk towards ½ (Laplace), so that 0 of n and n of n keep some variance."""
    p = (min(max(share, 0.0), 1.0) * n + 1) / (n + 2)
    return p * (1 - p)
