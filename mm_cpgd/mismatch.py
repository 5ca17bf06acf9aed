"""How far an engine with numerics of its own is from the policy, and a correction for it.

Both sides are log-probabilities at temperature 1 of the same tokens under the same weights. They differ by
rounding, kernels and batch; where they differ much, the samples are of another policy than the one that
learns from them.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor


@torch.no_grad()
def logprob_difference(old: Tensor, sampled: Tensor, mask: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Return these rows' part of the mean of |old - sampled| over a mini-batch's tokens, and the maximum.

    Args:
        old: (n, T) by the trainer.
        sampled: (n, T) by the engine.
        mask: (n, T) True where a token is the completion's own.
        lengths: (M,) completion lengths of the whole mini-batch.
    """
    gap = (old - sampled).abs().masked_fill(~mask, 0.0)
    return {
        "logprob_difference": gap.sum() / lengths.sum().clamp(min=1).to(gap.device),
        "max/logprob_difference": gap.amax(),
    }


@torch.no_grad()
def truncated_weights(old: Tensor, sampled: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Return min(π_old / π_sampled, cap) for each token, (n, T): truncated importance sampling.

    Source: Ionides 2008 (Journal of Computational and Graphical Statistics 17); for rollout engines Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training". 1 where the mask is
    False or the engine gave no number.
    """
    ratio = (old - sampled).clamp(max=log(cap)).exp()
    return ratio.where(mask & ~ratio.isnan(), torch.ones_like(ratio))
