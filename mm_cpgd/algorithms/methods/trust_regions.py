"""Surrogates whose trust region is not a clip of each token's ratio: gates, geometric means, divergences.

Inputs and results are those of ``surrogates``: ``log_ratio`` ℓ (n, T), ``advantages`` (n, 1) or (n, T) to
terms (n, T) and ``clipped`` (n, T) bool, the tokens without a gradient, or whose weight is bounded.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import AboveOne, described
from mm_cpgd.algorithms.regularizers import LARGEST_LOG_RATIO


@described(
    "S = (4/τ)·σ(τ·(r − 1))·A, σ the logistic function, τ = {tau_positive} for A > 0, else {tau_negative}",
    gradient="4·σ·(1 − σ)·r·A, which is A at r = 1 and falls off on both sides",
    source="SAPO, arXiv 2511.20347",
    group="ratio of each token",
    use="as ppo_clip, where hard bounds lose too many gradients",
)
def sapo(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    tau_positive: PositiveFloat = 1.0,
    tau_negative: PositiveFloat = 1.05,
) -> tuple[Tensor, Tensor]:
    """SAPO: a smooth gate in place of the clip; no token's gradient is cut to 0.

    Larger temperatures make the gate narrower. The paper takes the larger one for A < 0, where the gradient
    raises the probabilities of all tokens that were not sampled.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        tau_positive: the paper's τ_pos.
        tau_negative: the paper's τ_neg.

    Returns:
        Terms (n, T), and clipped, False everywhere (n, T).
    """
    positive, negative = (log_ratio.new_tensor(tau) for tau in (tau_positive, tau_negative))
    tau = torch.where(advantages > 0, positive, negative)
    # σ is 1 in float64 long before; the clamp only keeps an overflowing ratio's gradient at 0 instead of NaN.
    ratio = log_ratio.clamp(max=LARGEST_LOG_RATIO).exp()
    terms = torch.sigmoid(tau * (ratio - 1)) * (4 / tau) * advantages
    return terms, torch.zeros_like(log_ratio, dtype=torch.bool)


@described(
    "S = g·A for every token, g = e^(mean over y of b), b = min(ℓ, {bound_high}) for A > 0, "
    "max(ℓ, −{bound_low}) for A < 0",
    gradient="g·A, or 0 where ℓ is beyond its bound",
    source="GMPO, arXiv 2507.20673, its token form",
    group="ratio of the completion",
    use="as gspo, where single tokens with outlying ratios should not silence a completion",
)
def gmpo(
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    bound_low: PositiveFloat = 0.4,
    bound_high: PositiveFloat = 0.4,
) -> tuple[Tensor, Tensor]:
    """GMPO: the geometric mean of the completion's ratios, each clipped by itself in logarithms.

    Unlike ``gspo`` a token beyond its bound loses its own gradient, not that of the whole completion. The
    bounds are of ℓ: 0.4 is a ratio from 0.67 to 1.49. Every token has the value of its completion and its own
    gradient, so that with ``completion_mean`` the gradient is that of the paper's mean over completions.

    Args:
        log_ratio: (n, T), whole completions.
        advantages: (n, 1) or (n, T).
        mask: (n, T) bool.
        bound_low: bounds tokens with A < 0 at ℓ = −bound_low.
        bound_high: bounds tokens with A > 0 at ℓ = bound_high.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    negative, positive = advantages < 0, advantages > 0
    bounded = torch.where(negative, log_ratio.clamp(min=-bound_low), log_ratio.clamp(max=bound_high))
    clipped = (negative & (log_ratio < -bound_low)) | (positive & (log_ratio > bound_high))
    tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
    mean = ((bounded * mask).sum(dim=1, keepdim=True) / tokens).detach()
    by_token = mean + bounded - bounded.detach()
    return by_token.clamp(max=LARGEST_LOG_RATIO).exp() * advantages, clipped & mask


_DELTA = {"tv": 0.15, "kl": 0.05}


@described(
    "S = sg(min(r, {cap}))·A·ℓ, or 0 where D is above δ on the side of improvement (p above p_old for A > 0, "
    "below it for A < 0); p = π(token), δ = {delta_high} for A > 0, {delta_low} for A < 0",
    gradient="min(r, {cap})·A, or 0 beyond the trust region",
    source="DPPO, arXiv 2602.04879; its binary forms, as in the authors' code and verl",
    choice="divergence",
    variants={
        "tv": "D = |p − p_old|, δ of 0.15 where not given",
        "kl": "D = p_old·ln(p_old/p) + (1 − p_old)·ln((1 − p_old)/(1 − p)), δ of 0.05 where not given",
    },
    group="ratio of each token",
    use="large vocabularies and stale rollouts: rare tokens may move, frequent ones are held",
)
def dppo(
    log_ratio: Tensor,
    advantages: Tensor,
    old_logprobs: Tensor,
    *,
    divergence: Literal["tv", "kl"] = "tv",
    delta_low: PositiveFloat | None = None,
    delta_high: PositiveFloat | None = None,
    cap: AboveOne = 1e4,
) -> tuple[Tensor, Tensor]:
    """DPPO: a token leaves the loss where the policy has moved too far, by a divergence and not by its ratio.

    The divergence is that of the two-way choice between the sampled token and all others, the paper's binary
    approximation: a rare token may change its ratio a lot and the distribution hardly at all, a frequent one
    the reverse. Left out: the paper's approximation by the K largest probabilities, which needs their values
    under both policies. The value of the term has no meaning; only its gradient has.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        old_logprobs: (n, T), log π_old of the sampled token.
        divergence: *tv*, the total variation, or *kl*, KL(π_old ‖ π).
        delta_low: largest divergence of tokens with A < 0; None: the authors' for the divergence.
        delta_high: likewise for A > 0.
        cap: largest ratio in the gradient; 10,000 in the authors' runs.

    Returns:
        Terms (n, T), and the tokens with A ≠ 0 outside of the trust region (n, T).
    """
    low, high = (_DELTA[divergence] if given is None else given for given in (delta_low, delta_high))
    moved = log_ratio.detach()
    positive = advantages > 0
    size = binary_divergence(old_logprobs, moved, divergence)
    improving = torch.where(positive, moved > 0, moved < 0)
    limit = torch.where(positive, size.new_tensor(high), size.new_tensor(low))
    outside = improving & (size > limit) & (advantages != 0)
    weight = moved.clamp(max=math.log(cap)).exp().masked_fill(outside, 0.0)
    return weight * advantages * log_ratio, outside


def binary_divergence(old_logprobs: Tensor, log_ratio: Tensor, divergence: str) -> Tensor:
    """Return the divergence of the choice between a token and all others, (n, T), ≥ 0.

    Args:
        old_logprobs: (n, T).
        log_ratio: (n, T), log π − log π_old.
        divergence: *tv*, |p − p_old|; *kl*, KL(π_old ‖ π) in nats.
    """
    old = old_logprobs.clamp(max=0.0).exp()
    new = (old_logprobs + log_ratio).clamp(max=0.0).exp()
    if divergence == "tv":
        return (new - old).abs()
    # 1 − p loses all its digits near p = 1; the smallest normal number keeps the logarithm finite.
    tiny = torch.finfo(old.dtype).tiny
    rest_old, rest = (-torch.expm1((old_logprobs + x).clamp(max=0.0)) for x in (0.0, log_ratio))
    others = rest_old * (rest_old.clamp(min=tiny).log() - rest.clamp(min=tiny).log())
    return (others - old * log_ratio).clamp(min=0.0)
