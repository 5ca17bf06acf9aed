"""Means over seeds with 95 % intervals; plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# Student's t, 97.5 % quantile by degrees of freedom, as tabulated; beyond, Cornish and Fisher's expansion.
_T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z = 1.959964


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval, infinitely wide for a single value, None for none.

    Attributes:
        n: values.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


def mean_of(values: Sequence[float], low: float = -math.inf, high: float = math.inf) -> Mean:
    """Return the mean with Student's interval, for values that are as many independent draws.

    Args:
        values: those that are not finite are left out.
        low: the interval is cut here.
        high: and here.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Mean(None, None, None, 0)
    mean = fmean(known)
    if len(known) == 1:
        return Mean(mean, low, high, 1)
    half = t_quantile(len(known) - 1) * stdev(known) / math.sqrt(len(known))
    return Mean(mean, max(low, mean - half), min(high, mean + half), len(known))


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t with so many degrees of freedom, to three decimals."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)
