"""Accuracy with its uncertainty, overall and by group; plain Python, no torch."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from rewards.errors import RuleError


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927), which stays within 0 and 1.

    Args:
        correct: successes, 0 … ``total``.
        total: trials; with none, nothing is known: (0, 1).
        confidence: of the interval, between 0 and 1.

    Raises:
        RuleError: the counts or the confidence are impossible.
    """
    if not 0 <= correct <= total:
        raise RuleError(f"{correct} correct of {total}: the count must lie between 0 and the total; recount")
    if not 0 < confidence < 1:
        raise RuleError(f"confidence {confidence:g} must lie between 0 and 1; 0.95 is usual")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = correct / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / weight
    half = z / weight * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # Exactly 0 and 1 at the ends, where rounding would leave a hair.
    low = 0.0 if correct == 0 else centre - half
    return low, 1.0 if correct == total else centre + half
