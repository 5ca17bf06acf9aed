"""Surrogates: the term that is maximised for each token.

A part takes ``log_ratio`` ℓ = log π − log π_old (n, T) and ``advantages`` (n, 1) or (n, T), and returns the
terms (n, T) and ``clipped`` (n, T) bool: the tokens on which a bound acts, so that their gradient is 0 (in
``cispo``: bounded). Every bound is applied to ℓ, also where the paper states it for the ratio r = e^ℓ: the
value is the same, and a ratio that overflows beyond a bound has gradient 0 instead of 0·∞.
"""

from __future__ import annotations

import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.part_info import AboveOne, OpenShare, UpToOne, described


@described(
    "S = ℓ·A",
    gradient="A",
    source="REINFORCE, Williams 1992",
    group="without a ratio",
    use="one optimizer step for each rollout batch",
    without_old=True,
)
def policy_gradient(log_ratio: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Plain policy gradient; nothing is clipped.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).

    Returns:
        Terms (n, T), clipped (n, T).
    """
    return log_ratio * advantages, torch.zeros_like(log_ratio, dtype=torch.bool)


@described(
    "S = min(ℓ·A, clip(ℓ, ln(1 − {epsilon_low}), ln(1 + {epsilon_high}))·A)",
    gradient="A, or 0 beyond the bound",
    source="CPGD, arXiv 2505.12504",
    group="without a ratio",
    use="several steps for each batch; no ratio in the gradient can explode",
)
def cpgd(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: OpenShare = 0.2,
    epsilon_high: PositiveFloat = 0.2,
    ramp_start: PositiveFloat = 1.0,
    ramp_tokens: PositiveInt = 128,
) -> tuple[Tensor, Tensor]:
    """CPGD: the log-ratio, clipped on the side of improvement.

    Args:
        log_ratio: (n, T); column t is the completion's token t.
        advantages: (n, 1) or (n, T).
        epsilon_low: bounds tokens with A < 0 at ratio 1 − ε_low.
        epsilon_high: bounds tokens with A > 0 at ratio 1 + ε_high.
        ramp_start: factor on both ε for the first token; below 1 early bounds are tighter, 1 is no ramp.
        ramp_tokens: number of tokens over which the factor grows linearly to 1.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    scale = epsilon_ramp(log_ratio, ramp_start, ramp_tokens)
    bounded, clipped = one_sided_clip(log_ratio, advantages, epsilon_low * scale, epsilon_high * scale)
    return bounded * advantages, clipped


@described(
    "S = min(r·A, clip(r, 1 − {epsilon_low}, 1 + {epsilon_high})·A)",
    gradient="r·A, or 0 beyond the bound",
    source="PPO, arXiv 1707.06347, eq. 7; two ε: DAPO",
    group="ratio of each token",
    use="the common choice for several steps on a batch",
)
def ppo_clip(
    log_ratio: Tensor, advantages: Tensor, *, epsilon_low: UpToOne = 0.2, epsilon_high: PositiveFloat = 0.2
) -> tuple[Tensor, Tensor]:
    """PPO: the ratio, clipped on the side of improvement.

    As published there is no bound for A < 0 and r > 1, where a ratio and thus the loss may overflow.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        epsilon_low: bounds tokens with A < 0 at 1 − ε_low; 1: no bound.
        epsilon_high: bounds tokens with A > 0 at 1 + ε_high.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    bounded, clipped = one_sided_clip(log_ratio, advantages, epsilon_low, epsilon_high)
    return bounded.exp() * advantages, clipped


@described(
    "S = min(r·A, clip(r, 1 − {epsilon_low}, 1 + {epsilon_high})·A), for A < 0 at least {bound}·A",
    gradient="r·A, or 0 beyond either bound",
    source="dual-clip PPO, arXiv 1912.09729",
    group="ratio of each token",
    use="ppo_clip where tokens of bad completions become much likelier",
)
def dual_clip(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_low: OpenShare = 0.2,
    epsilon_high: PositiveFloat = 0.2,
    bound: AboveOne = 3.0,
) -> tuple[Tensor, Tensor]:
    """PPO's clip, and a bound on the ratio where the advantage is negative.

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


@described(
    "S = r·A",
    gradient="r·A",
    source="conservative policy iteration; KL-Cov's code, arXiv 2505.22617",
    group="ratio of each token",
    use="together with a divergence that bounds the move: mirror, kl_cov",
)
def importance(log_ratio: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio without a clip; a large ratio may overflow. Shapes as in ``policy_gradient``."""
    return log_ratio.exp() * advantages, torch.zeros_like(log_ratio, dtype=torch.bool)


@described(
    "S = e^(A / {temperature})·ℓ",
    gradient="e^(A / {temperature})",
    source="the forward form of mirror descent (arXiv 2005.09814 names it); AWR, arXiv 1910.00177",
    group="without a ratio",
    use="imitation of the better samples; data of other policies",
)
def exp_advantage(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    temperature: PositiveFloat = 1.0,
    largest: PositiveFloat = 20.0,
) -> tuple[Tensor, Tensor]:
    """Weighted likelihood: raises the probability of every sample, by e^(A / λ).

    It fits the policy to π_old·e^(A / λ), the target that mirror descent approaches from the other side. A
    completion with A < 0 is imitated too, only less; nothing is ever pushed down. The bound on the weight is
    AWR's.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        temperature: λ, in units of advantage.
        largest: bound on the weight.

    Returns:
        Terms (n, T), and where the bound acts (n, T).
    """
    weight = (advantages / temperature).exp()
    bounded = (weight > largest).expand_as(log_ratio)
    return weight.clamp(max=largest) * log_ratio, bounded


@described(
    "S = sg(min(r, 1 + {epsilon_high}))·A·ℓ",
    gradient="min(r, 1 + {epsilon_high})·A",
    source="CISPO, arXiv 2506.13585",
    group="ratio of each token",
    use="long or stale rollouts, where rare decisive tokens should keep their gradient",
)
def cispo(
    log_ratio: Tensor,
    advantages: Tensor,
    *,
    epsilon_high: PositiveFloat = 4.0,
    epsilon_low: PositiveFloat | None = None,
) -> tuple[Tensor, Tensor]:
    """CISPO: the ratio is a bounded constant weight (sg), so that every token keeps a gradient.

    The paper has no lower bound and does not state its upper one; 1 + ε_high = 5 is ScaleRL's (arXiv
    2510.13786). TRL's ``epsilon_high`` is the whole bound, 1 + ε_high here. The value of the term has no
    meaning; only its gradient has.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        epsilon_high: weights are at most 1 + ε_high.
        epsilon_low: weights are at least 1 − ε_low; None or above 1: no lower bound.

    Returns:
        Terms (n, T), and where a bound acts on a weight with A ≠ 0 (n, T).
    """
    low = math.log(1 - epsilon_low) if epsilon_low is not None and epsilon_low < 1 else -math.inf
    weight = log_ratio.detach().clamp(min=low, max=math.log1p(epsilon_high))
    bounded = (weight != log_ratio.detach()) & (advantages != 0)
    return weight.exp() * advantages * log_ratio, bounded


@described(
    "S = min(s·A, clip(s, 1 − {epsilon_low}, 1 + {epsilon_high})·A), s = sg(e^(mean of ℓ over y))·π/sg(π)",
    gradient="e^(mean of ℓ over y)·A, or 0 beyond the bound",
    source="GSPO, arXiv 2507.18071, its token form",
    group="ratio of the completion",
    use="models with experts, whose token ratios are noisy",
)
def gspo(
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    epsilon_low: OpenShare = 3e-4,
    epsilon_high: PositiveFloat = 4e-4,
) -> tuple[Tensor, Tensor]:
    """GSPO: the |y|-th root of the completion's ratio in place of each token's ratio.

    Every token has the value of the sequence and its own gradient (the paper's GSPO-token), so that
    advantages may differ by token; where they do not, the gradient with ``completion_mean`` is GSPO's.

    Args:
        log_ratio: (n, T), whole completions.
        advantages: (n, 1) or (n, T).
        mask: (n, T) bool.
        epsilon_low: bounds completions with A < 0 at 1 − ε_low.
        epsilon_high: bounds completions with A > 0 at 1 + ε_high.

    Returns:
        Terms (n, T), clipped (n, T).
    """
    tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
    sequence = ((log_ratio * mask).sum(dim=1, keepdim=True) / tokens).detach()
    by_token = sequence + log_ratio - log_ratio.detach()
    bounded, clipped = one_sided_clip(by_token, advantages, epsilon_low, epsilon_high)
    return bounded.exp() * advantages, clipped & mask


def one_sided_clip(
    log_ratio: Tensor, advantages: Tensor, epsilon_low: float | Tensor, epsilon_high: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Bound ℓ on the side of improvement only: above for A ≥ 0, below for A < 0.

    Multiplied by A this is min(ℓ·A, clip(ℓ)·A), and likewise for any increasing function of ℓ.

    Args:
        log_ratio: (n, T).
        advantages: (n, 1) or (n, T).
        epsilon_low: scalar, (T,) or (n, T), at most 1: no bound.
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
    """Return factors on ε by position, start + (1 − start)·min(t / tokens, 1), (T,)."""
    positions = torch.arange(log_ratio.shape[-1], dtype=log_ratio.dtype, device=log_ratio.device)
    return start + (1 - start) * (positions / tokens).clamp(max=1)
