"""A surrogate of one's own on whole completions: ratios to the old policy, normalised within the group."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.algorithms import described


def share_of_group(log_ratios: Tensor) -> Tensor:
    """Return each completion's share of the group's ratios π(y)/π_old(y), times their number, (p, G)."""
    known = ~log_ratios.isnan()
    shares = log_ratios.masked_fill(~known, float("-inf")).softmax(dim=1)
    return torch.where(known, shares * known.sum(dim=1, keepdim=True), 0.0)


@described("S = sg(π(y)/π_old(y) as a share of the group's, times G)·A·ℓ", of_groups=share_of_group)
def self_normalised(log_ratio: Tensor, advantages: Tensor, prepared: Tensor) -> Tensor:
    """Self-normalised importance weights of whole completions; terms (n, T)."""
    return prepared * advantages * log_ratio
