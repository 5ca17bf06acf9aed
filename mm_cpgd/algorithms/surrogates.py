"""What is maximised for each token.

A part takes ``log_ratio`` ℓ = log π − log π_old (n, T) and ``advantages`` (n, 1) or (n, T), and returns the
terms (n, T) and ``clipped`` (n, T) bool: the tokens whose gradient is 0 because of a bound. Every bound is
laid on ℓ, also where the paper writes it for the ratio r = e^ℓ: the same number, and a ratio that overflows
behind a bound then has gradient 0 instead of 0·∞.
"""

from __future__ import annotations

import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.limits import AboveOne, OpenShare


def policy_gradient(log_ratio: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """ℓ·A, whose gradient is A·∇log π: REINFORCE (Williams 1992). Nothing is clipped.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).

    Returns:
        Terms (n, T), clipped (n, T).
    """
    return log_ratio * advantages, torch.zeros_like(log_ratio, dtype=torch.bool)


def cpgd(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: OpenShare = 0.2,
    epsilon_high: PositiveFloat = 0.2,
    ramp_start: PositiveFloat = 1.0,
    ramp_tokens: PositiveInt = 128,
) -> tuple[Tensor, Tensor]:
    """min(ℓ·A, clip(ℓ, ln(1 − ε_low), ln(1 + ε_high))·A): CPGD (arXiv 2505.12504).

    Args:
        log_ratio: (n, T), column t the completion's token t.
        advantages: (n, 1) or (n, T).
        epsilon_low: bounds tokens with A < 0 at ratio 1 − ε_low.
        epsilon_high: bounds tokens with A > 0 at ratio 1 + ε_high.
        ramp_start: factor on both ε for the first token; below 1 early tokens are held tighter. 1 is no ramp.
        ramp_tokens: tokens after which the factor has grown, linearly, to 1.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    scale = epsilon_ramp(log_ratio, ramp_start, ramp_tokens)
    bounded, clipped = one_sided_clip(log_ratio, advantages, epsilon_low * scale, epsilon_high * scale)
    return bounded * advantages, clipped


def ppo_clip(
    log_ratio: Tensor, advantages: Tensor, *, epsilon_low: OpenShare = 0.2, epsilon_high: PositiveFloat = 0.2
) -> tuple[Tensor, Tensor]:
    """min(r·A, clip(r, 1 − ε_low, 1 + ε_high)·A): PPO (arXiv 1707.06347, eq. 7), two ε as in DAPO.

    As published it has no bound for A < 0 and r > 1; there a ratio may overflow and the loss with it.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        epsilon_low: bounds tokens with A < 0 at 1 − ε_low.
        epsilon_high: bounds tokens with A > 0 at 1 + ε_high.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    bounded, clipped = one_sided_clip(log_ratio, advantages, epsilon_low, epsilon_high)
    return bounded.exp() * advantages, clipped


def dual_clip(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: OpenShare = 0.2,
    epsilon_high: PositiveFloat = 0.2,
    bound: AboveOne = 3.0,
) -> tuple[Tensor, Tensor]:
    """PPO's term, and for A < 0 at least bound·A: dual-clip PPO (arXiv 1912.09729).

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        epsilon_low: as in ``ppo_clip``.
        epsilon_high: as in ``ppo_clip``.
        bound: the paper's c, the largest ratio that counts when A < 0.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    bounded, clipped = one_sided_clip(log_ratio, advantages, epsilon_low, epsilon_high)
    exploded = (advantages < 0) & (log_ratio > math.log(bound))
    return bounded.clamp(max=math.log(bound)).exp() * advantages, clipped | exploded


def one_sided_clip(
    log_ratio: Tensor, advantages: Tensor, epsilon_low: float | Tensor, epsilon_high: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Bound ℓ on the side of improvement only: above for A ≥ 0, below for A < 0.

    Multiplied by A this is min(ℓ·A, clip(ℓ)·A), and likewise for any increasing function of ℓ.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        epsilon_low: scalar, (T,) or (n, T), below 1.
        epsilon_high: scalar, (T,) or (n, T).

    Returns:
        Bounded ℓ (n, T), and where the bound acts on a token with A ≠ 0 (n, T).
    """
    low = torch.log1p(-torch.as_tensor(epsilon_low, dtype=log_ratio.dtype, device=log_ratio.device))
    high = torch.log1p(torch.as_tensor(epsilon_high, dtype=log_ratio.dtype, device=log_ratio.device))
    negative = advantages < 0
    bounded = torch.where(negative, log_ratio.clamp(min=low), log_ratio.clamp(max=high))
    clipped = torch.where(negative, log_ratio < low, (advantages > 0) & (log_ratio > high))
    return bounded, clipped


def epsilon_ramp(log_ratio: Tensor, start: float, tokens: int) -> Tensor:
    """Factors on ε for each position: start + (1 − start)·min(t / tokens, 1), (T,)."""
    positions = torch.arange(log_ratio.shape[-1], dtype=log_ratio.dtype, device=log_ratio.device)
    return start + (1 - start) * (positions / tokens).clamp(max=1)
