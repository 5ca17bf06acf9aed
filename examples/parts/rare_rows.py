"""Replay of one's own: each iteration, successes of the rows on which the buffer holds the fewest."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from mm_cpgd.algorithms import described
from mm_cpgd.algorithms.by_row.replay import ReplayBuffer


class KeptBuffer(ReplayBuffer):
    """The buffer, from which entries are replayed until they are too old."""

    def __init__(self, tolerate: int) -> None:
        super().__init__(capacity=1024, tolerate=tolerate, emptied=False)


@described("A of the {count} entries whose rows have the fewest, the newest first", memory=ReplayBuffer)
def rare_rows(
    advantages: Tensor,
    ages: Tensor,
    rows: Tensor,
    memory: KeptBuffer,
    *,
    count: PositiveInt = 8,
    tolerate: PositiveInt = 4,
) -> Tensor:
    """Replay what was solved rarely, with its advantage when it was sampled.

    Args:
        advantages: (E,).
        ages: (E,) iterations since an entry was sampled.
        rows: (E,) training rows.
        memory: the buffer.
        count: entries that are replayed.
        tolerate: largest age of an entry.

    Returns:
        (E,), NaN where an entry is not replayed.
    """
    _, place, times = rows.unique(return_inverse=True, return_counts=True)
    order = (times[place] * (int(ages.max()) + 1) + ages).argsort(stable=True)
    found = torch.full_like(advantages, torch.nan)
    found[order[:count]] = advantages[order[:count]]
    return found
