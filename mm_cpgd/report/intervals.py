"""Wilson score interval of a share (Wilson 1927, without continuity correction); plain Python."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from rewards.verdict import RuleError

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution, for intervals of 95 %."""


def wilson_interval(correct: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share, which stays within 0 and 1.

    Args:
        correct: successes, 0 … ``total``; a sum of partial scores makes the interval wider than necessary.
        total: number of trials; for 0 the interval is (0, 1).
        confidence: confidence level, between 0 and 1.

    Raises:
        RuleError: the counts or the confidence are impossible.
    """
    if not 0 <= correct <= total:
        raise RuleError(f"{correct} correct of {total}: must lie between 0 and the total; check both")
    z = normal_quantile(confidence)
    if total == 0:
        return 0.0, 1.0
    return wilson_interval_of_share(correct / total, total, z)


def wilson_interval_of_share(share: float, total: float, z: float) -> tuple[float, float]:
    """Return the score interval of a share of ``total`` trials, exactly 0 and 1 at the ends.

    Args:
        share: successes as a share of the trials, 0 … 1.
        total: number of trials, more than 0.
        z: quantile of the standard normal distribution, see ``normal_quantile``.
    """
    weight = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / weight
    half = z / weight * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # Rounding would leave a tiny difference at the ends.
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half


def normal_quantile(confidence: float) -> float:
    """Return the two-sided quantile of the standard normal distribution.

    Raises:
        RuleError: the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise RuleError(f"confidence {confidence:g} must lie between 0 and 1; 0.95 is usual")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
