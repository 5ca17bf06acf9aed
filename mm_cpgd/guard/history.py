"""The recent past of a run, as its rows of ``metrics.jsonl``, and how noisy its numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

WINDOW = 16
"""Iterations that count as the recent past."""
_KEPT = WINDOW + 4
_EVALUATIONS = 8
# Of the spread between a prompt's completions and another's: 0 would make them independent draws.
CORRELATION = 0.5
HELD_OUT = "eval/accuracy"


@dataclass(frozen=True)
class History:
    """The rows that tests of signs look at, oldest first.

    Attributes:
        rows: finished iterations; metrics that a row lacks, null and NaN count as absent.
        completions: G, completions a prompt.
    """

    rows: Sequence[Row]
    completions: int = 8

    def recent(self, metric: str) -> list[tuple[float, Row]]:
        """The last values of a metric with their rows; none if the newest row lacks it."""
        if not self.rows or value_of(self.rows[-1], metric) is None:
            return []
        rows = self.rows if metric == HELD_OUT else self.rows[-_KEPT:]
        found = ((value_of(row, metric), row) for row in rows)
        return [(value, row) for value, row in found if value is not None]


def trimmed(rows: Sequence[Row]) -> list[Row]:
    """Those rows that ``watch`` looks at: the newest, and of earlier ones the last that hold evaluations."""
    earlier = [row for row in rows[:-_KEPT] if value_of(row, HELD_OUT) is not None]
    return [*earlier[-_EVALUATIONS:], *rows[-_KEPT:]]


def value_of(row: Row, metric: str) -> float | None:
    """The finite number in a row, or None."""
    value = row.get(metric)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def variance_of_mean(row: Row, metric: str, value: float, completions: int) -> float:
    """Variance of a row's mean by the chance of sampling alone.

    The completions of a prompt resemble each other: n of them are worth n/(1 + (G − 1)ρ) independent ones
    (design effect; Kish 1965) with ρ = ``CORRELATION``. Greedy held-out answers are one a question.
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
    """Completions of an iteration."""
    tokens, length = value_of(row, "tokens/sampled"), value_of(row, "completion/length_mean")
    return tokens / length if tokens and length else 64.0


def _variance_of_share(share: float, n: float) -> float:
    """p(1 − p) with p drawn a little to ½ (Laplace), so that 0 of n and n of n are not free of doubt."""
    p = (min(max(share, 0.0), 1.0) * n + 1) / (n + 2)
    return p * (1 - p)
