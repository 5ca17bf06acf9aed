"""Advantages by token of one's own: the credit of a completion grows along its tokens."""

from __future__ import annotations

from torch import Tensor

from mm_cpgd.algorithms import described


@described("A ← A·(1 + {slope}·(2t − 1)), t from 0 at the completion's first token to 1 at its last")
def late_tokens(advantages: Tensor, mask: Tensor, *, slope: float = 0.5) -> Tensor:
    """Weight later tokens more; the mean weight of a completion is 1.

    Args:
        advantages: (N, T).
        mask: (N, T) True at tokens that the policy sampled.
        slope: half the difference between the last and the first weight.

    Returns:
        (N, T).
    """
    number = mask.cumsum(dim=1) - 1
    last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    return advantages * (1 + slope * (2 * number / last - 1))
