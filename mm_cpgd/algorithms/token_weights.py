"""Token weights: weights of the surrogate by token.

A part that takes ``log_ratio`` is called at every step, with the inputs and shapes of a surrogate, and
returns weights (n, T); a row depends on nothing but itself. Any other is computed from the whole mini-batch:
it takes any of ``old_logprobs``, ``old_entropy``, ``advantages``, all (K,) for the K tokens of the mini-batch
over all processes in some order, and ``seed``, an int, and returns weights (K,) on the surrogate. It is
called once, before the first optimizer step, with values of the old policy: the result therefore does not
depend on micro-batches or the number of processes and is the same in all inner epochs. The papers use the
current policy; at the first step of an iteration the two are the same.
"""

from __future__ import annotations

import math

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import OpenShare, UpToOne, described


@described(
    "m = 1 for the {share} of the mini-batch's tokens with the highest entropy, if it is above 0, else 0",
    source="Beyond the 80/20 rule, arXiv 2506.01939",
    group="before the first step",
    use="long reasoning, where most tokens are certain",
)
def forking_tokens(old_entropy: Tensor, *, share: OpenShare = 0.2) -> Tensor:
    """Use only forking tokens, those at which the policy was least certain of the next token.

    The threshold is the interpolated quantile 1 − share, inclusive. Where more than 1 − share of the tokens
    have entropy 0 it is 0, and all others count; in TRL all tokens would, and the method would be DAPO. The
    aggregation's denominator still counts all tokens, as in the paper.

    Args:
        old_entropy: (K,), nats.
        share: share of the tokens that are used.

    Returns:
        (K,), 0 or 1.
    """
    if not old_entropy.numel():
        return old_entropy
    forking = (old_entropy >= quantile(old_entropy, 1 - share)) & (old_entropy > 0)
    return forking.to(old_entropy.dtype)


@described(
    "m = 1 for the {share} of the mini-batch's tokens with the largest |A|·H, if it is above 0, else 0; "
    "1 for all at a share of 1",
    source="D³S, arXiv 2509.22115",
    group="before the first step",
    use="with the completions part max_variance: few tokens early, nearly all late",
)
def impact_tokens(old_entropy: Tensor, advantages: Tensor, *, share: UpToOne = 0.2) -> Tensor:
    """Use only tokens at which the policy was uncertain and much is to be gained or lost.

    The threshold is the interpolated quantile 1 − share, inclusive. The aggregation's denominator still
    counts all tokens.

    Args:
        old_entropy: (K,), nats.
        advantages: (K,).
        share: share of the tokens that are used; the default is a choice of this project.

    Returns:
        (K,), 0 or 1.
    """
    impact = advantages.abs() * old_entropy
    if share == 1 or not impact.numel():
        return torch.ones_like(impact)
    return ((impact >= quantile(impact, 1 - share)) & (impact > 0)).to(old_entropy.dtype)


@described(
    "m = 0 for {share} of the mini-batch's tokens, drawn from those with {low} < c < {high}, else 1; "
    "c = (log π − mean log π)·(A − mean A) over the mini-batch",
    source="Clip-Cov, arXiv 2505.22617",
    differs=(
        "The authors' code draws from each micro-batch at least one token, among those that PPO's clip "
        "does not stop yet, by the current policy. Here the draw is from the whole mini-batch, clipped "
        "tokens included, by the old policy, so that it does not depend on the micro-batches.",
    ),
    group="before the first step",
    use="against the collapse of entropy, without a penalty",
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
    """Drop a few of the tokens with high covariance with the advantage, which reduce the entropy most.

    The draw depends on the seed and the ranks of the covariances, not on the order of the tokens.

    Args:
        old_logprobs: (K,).
        advantages: (K,).
        seed: seed of the draw.
        share: share of all K tokens to drop; at least one token, at most all within the band.
        low: lower end of the band, the paper's ω_low.
        high: upper end of the band, the paper's ω_high.

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


@described(
    "m = 0 for completions with A < 0 and mean over y of −ℓ above {delta}, else 1",
    source="off-policy sequence masking, DeepSeek-V3.2, arXiv 2512.02556, eq. 9",
    differs=(
        "The paper takes as π_old the probabilities that the rollout engine reports, so that its numerical "
        "differences count too, and does not state δ. Here π_old is the trainer's, and delta is 0.5, the "
        "example of TRL's documentation. For engines, rollout.vllm.correction masks by their differences.",
    ),
    group="at every step",
    use="stale rollouts or many steps on a batch",
)
def off_policy_mask(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, *, delta: PositiveFloat = 0.5
) -> Tensor:
    """Leave out completions to be made less likely that the policy has already left far behind.

    The mean of −ℓ = log π_old − log π over a completion's tokens estimates KL(π_old ‖ π) per token.
    Completions with A ≥ 0 always count: they pull the policy back. The aggregation's denominator still counts
    all tokens.

    Args:
        log_ratio: (n, T), whole completions.
        advantages: (n, 1) or (n, T).
        mask: (n, T) bool.
        delta: largest mean of −ℓ, in nats per token.

    Returns:
        (n, T), 0 or 1.
    """
    tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
    distance = -(log_ratio.detach() * mask).sum(dim=1, keepdim=True) / tokens
    left_out = (advantages < 0) & (distance > delta)
    return (~left_out).to(log_ratio.dtype).expand_as(log_ratio)


def largest_covariances(old_logprobs: Tensor, advantages: Tensor, *, share: OpenShare) -> Tensor:
    """Return 1 at the tokens of largest covariance, else 0; the ``prepare`` of ``regularizers.kl_cov``.

    Args:
        old_logprobs: (K,).
        advantages: (K,).
        share: share of all K tokens; at least one token.

    Returns:
        (K,).
    """
    c = covariance(old_logprobs, advantages)
    chosen = torch.zeros_like(c)
    count = min(max(1, int(share * c.numel())), c.numel())
    chosen[c.topk(count).indices] = 1
    return chosen


def covariance(old_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Return each token's contribution to the covariance of log-probability and advantage, (K,)."""
    if not old_logprobs.numel():
        return old_logprobs
    return (old_logprobs - old_logprobs.mean()) * (advantages - advantages.mean())


def quantile(values: Tensor, q: float) -> Tensor:
    """Return the linearly interpolated quantile; unlike ``torch.quantile`` for any number of values."""
    ordered = values.sort().values
    position = q * (values.numel() - 1)
    below = math.floor(position)
    above = min(below + 1, values.numel() - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)
