"""A rollout budget of one's own: the first half of each batch gets more completions, the second fewer."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.algorithms import described


@described("n = G + {more} in the first half of the batch, G − {more} in the second")
def first_half(rows: Tensor, completions: int, *, more: int = 1) -> Tensor:
    """Deal completions out by place; the middle prompt of an odd batch gets G.

    Args:
        rows: (P,) indices of the training rows.
        completions: G.
        more: completions that move; below G.

    Returns:
        (P,) of sum P·G.
    """
    half = len(rows) // 2
    counts = torch.full((len(rows),), completions)
    counts[:half] += more
    counts[len(rows) - half :] -= more
    return counts
