"""Corrections: importance weights of samples that another distribution than the old policy has drawn.

Another engine rounds differently from the trainer, and cuts may exclude tokens that the policy does not. With
d = ln π_old − ln π_sampled of a token, the ratio ρ of a token is e^d, and that of a completion y is the
geometric mean over its tokens, ρ = e^(mean of d over y), the same for all of them.

The product of a completion's ratios would be the ratio of its probability, but it has no scale that holds for
every length: the spread of its logarithm grows with √|y| and its mean, −KL per token, with |y|, so that a
bound on it would mostly select short completions. The geometric mean (GSPO, arXiv 2507.18071) of a long
completion is no noisier than that of a short one. Left out: products (verl's sequence weights), and weights
divided by their mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TOKEN_BOUNDS = (0.5, 2.0)
"""Default floor and cap of a token's ratio: Yao et al. 2025 use caps of 2 and more."""
SEQUENCE_BOUNDS = (0.95, 1.05)
"""The same for the mean ratio of a completion's tokens: 1.05 is a factor of 130 over 100 tokens."""


@dataclass(frozen=True)
class Correction:
    """What is done about ratios.

    Truncation (Ionides 2008, Journal of Computational and Graphical Statistics 17; for rollout engines Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training") gives each token the
    weight min(ρ, cap). Masking (IcePop, arXiv 2510.18855; of completions Liu et al. 2025, "When speed kills
    stability") gives it the weight ρ, and leaves it out of the loss where ρ is not in [floor, cap].

    Attributes:
        by_sequence: ρ is that of the completion, else that of the token.
        masks: ratios beyond the bounds leave the loss, else they are truncated at ``cap``.
        cap: largest weight; inf: no bound.
        floor: smallest ratio that a mask leaves; without effect on truncation.
    """

    by_sequence: bool = False
    masks: bool = False
    cap: float = math.inf
    floor: float = 0.0


@dataclass(frozen=True)
class Weights:
    """Importance weights of n completions.

    Attributes:
        values: (n, T) factors of the advantages; 0 where masked, 1 where no token is.
        truncated: (n, T) bool, tokens whose ratio was above the cap of a truncation.
        taking_part: (n, T) bool, False where a mask takes a token out of the loss.
    """

    values: Tensor
    truncated: Tensor
    taking_part: Tensor


@torch.no_grad()
def importance_weights(
    old: Tensor, sampled: Tensor, mask: Tensor, correction: Correction, kept_mass: Tensor | None = None
) -> Weights:
    """Return the importance weights of completions; each row depends on nothing but itself.

    A token that the engine gave no number for has no ratio: it counts in no mean, truncation leaves it at
    weight 1, a mask takes it out.

    Args:
        old: (n, T) log-probabilities of the old policy, computed by the trainer.
        sampled: (n, T) reported by the sampling engine, NaN where it gave none.
        mask: (n, T) True where a token is the completion's own.
        correction: bounds, and what they are of.
        kept_mass: (n, T) where ``old`` is over all tokens and ``sampled`` over those that the cuts left: ln
            of the probability that these have under the old policy. It is no mismatch: the ratio is over the
            same tokens, and the weight is multiplied by e^kept_mass ≤ 1. None: not separated.
    """
    log_ratio = old - sampled if kept_mass is None else old - sampled - kept_mass
    known = mask & ~log_ratio.isnan()
    if correction.by_sequence:
        total = log_ratio.where(known, 0.0).sum(1, keepdim=True)
        count = known.sum(1, keepdim=True)
        log_ratio = (total / count.clamp(min=1)).expand_as(log_ratio)
        known = mask & (count > 0)
    above, below = log_ratio > math.log(correction.cap), log_ratio < _log(correction.floor)
    values = log_ratio.clamp(max=math.log(correction.cap)).exp().where(known, 1.0)
    if kept_mass is not None:
        values = torch.where(known, values * kept_mass.exp(), values)
    if not correction.masks:
        return Weights(values, above & known, torch.ones_like(mask))
    taking_part = ~mask | (known & ~above & ~below)
    return Weights(values.where(taking_part, 0.0), torch.zeros_like(mask), taking_part)


def weight_metrics(
    found: Weights, mask: Tensor, lengths: Tensor, correction: Correction
) -> dict[str, Tensor]:
    """Return these rows' share of the mini-batch's token means.

    Args:
        found: of these rows.
        mask: (n, T) True where a token is the completion's own.
        lengths: (M,) completion lengths of the whole mini-batch.
        correction: as the weights were computed.

    Returns:
        ``weight``, the mean weight; the share of truncated tokens, ``weight_clipped``, or of those that left
        the loss, ``weight_masked``. To be summed over micro-batches and processes.
    """
    tokens = lengths.sum().clamp(min=1).to(mask.device)
    metrics = {"weight": (found.values * mask).sum() / tokens}
    if correction.masks:
        metrics["weight_masked"] = (mask & ~found.taking_part).sum() / tokens
    elif correction.cap < math.inf:
        metrics["weight_clipped"] = found.truncated.sum() / tokens
    return metrics


def _log(value: float) -> float:
    return math.log(value) if value else -math.inf
