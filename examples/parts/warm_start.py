"""Completions at another temperature, by a part of one's own: hot at first, as sampled later."""

from __future__ import annotations

from pydantic import PositiveFloat

from mm_cpgd.algorithms import described


@described("T from {hot} to 1 over the run; up to a quarter of P·G")
def warm_start(completions: int, progress: float, *, hot: PositiveFloat = 1.5) -> tuple[float, int]:
    """Imitate right answers of a hotter policy while the run is young.

    Args:
        completions: P·G.
        progress: 0 in the first iteration, 1 in the last.
        hot: temperature in the first iteration.

    Returns:
        The temperature, and the largest number of completions to imitate.
    """
    return hot + progress * (1 - hot), max(1, completions // 4)
