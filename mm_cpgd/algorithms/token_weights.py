"""Which tokens the surrogate is for, and how much; parts that must see the whole mini-batch before they know.

A part takes any of ``old_logprobs``, ``old_entropy``, ``advantages``, all (K,) for the K tokens of the
mini-batch over all processes in some order, and ``seed``, an int, and returns weights (K,) on the surrogate.
It is asked once, before the first optimizer step, of the policy that sampled: so what it returns cannot
depend on micro-batches or on the number of processes, and stays the same over inner epochs. Papers take the
policy as it is now; at the first step of an iteration the two are the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mm_cpgd.algorithms.part_info import OpenShare, described


@described(
    "m = 1 for the {share} of the mini-batch's tokens with the highest entropy, else 0",
    source="Beyond the 80/20 rule, arXiv 2506.01939",
)
def forking_tokens(old_entropy: Tensor, *, share: OpenShare = 0.2) -> Tensor:
    """Learn from forking tokens alone, those at which the policy was least sure how to go on.

    The threshold is the quantile 1 − share, interpolated; a token at the threshold counts. The aggregation's
    denominator stays that of all tokens, as in the paper.

    Args:
        old_entropy: (K,) nats.
        share: of tokens that are learned from.

    Returns:
        (K,), 0 or 1.
    """
    if not old_entropy.numel():
        return old_entropy
    return (old_entropy >= quantile(old_entropy, 1 - share)).to(old_entropy.dtype)


@described(
    "m = 0 for {share} of the mini-batch's tokens, drawn from those with {low} < c < {high}, else 1; "
    "c = (log π − mean log π)·(A − mean A) over the mini-batch",
    source="Clip-Cov, arXiv 2505.22617",
)
def clip_cov(
    old_logprobs: Tensor,
    advantages: Tensor,
    seed: int,
    *,
    share: OpenShare = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
) -> Tensor:
    """Leave out a few of the tokens whose covariance with the advantage is high: they cost entropy most.

    Which of them is drawn from the seed and the order of covariances, whatever the order of the tokens.

    Args:
        old_logprobs: (K,).
        advantages: (K,).
        seed: of the draw.
        share: of all K tokens, at least one, at most all within the band.
        low: the band's lower end, the paper's ω_low.
        high: its upper end, ω_high.

    Returns:
        (K,), 0 or 1.
    """
    c = covariance(old_logprobs, advantages)
    weights = torch.ones_like(c)
    band = ((c > low) & (c < high)).nonzero().squeeze(1)
    count = min(max(1, int(share * c.numel())), band.numel())
    ordered = band[c[band].argsort(stable=True)]
    draw = torch.randperm(band.numel(), generator=torch.Generator().manual_seed(seed))[:count]
    weights[ordered[draw.to(ordered.device)]] = 0
    return weights


def largest_covariances(old_logprobs: Tensor, advantages: Tensor, *, share: OpenShare) -> Tensor:
    """1 at the tokens of largest covariance, else 0; first stage of ``regularizers.kl_cov``.

    Args:
        old_logprobs: (K,).
        advantages: (K,).
        share: of all K tokens, at least one.

    Returns:
        (K,).
    """
    c = covariance(old_logprobs, advantages)
    chosen = torch.zeros_like(c)
    count = min(max(1, int(share * c.numel())), c.numel())
    chosen[c.topk(count).indices] = 1
    return chosen


def covariance(old_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Each token's part in the covariance of log-probability and advantage, centred over all K, (K,)."""
    if not old_logprobs.numel():
        return old_logprobs
    return (old_logprobs - old_logprobs.mean()) * (advantages - advantages.mean())


def quantile(values: Tensor, q: float) -> Tensor:
    """Linear interpolation between order statistics; unlike torch's for any number of values."""
    ordered = values.sort().values
    place = q * (values.numel() - 1)
    below = math.floor(place)
    above = min(below + 1, values.numel() - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)
