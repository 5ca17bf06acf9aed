"""Advantages of several quantities: rewards of rules kept apart, and lengths beside rewards.

Inputs and results are those of ``advantages``; in addition ``components`` (P, G, R), the score of each rule,
``weights`` (R,) and ``shaping`` (P, G), with Σ weights·components + shaping = rewards; ``lengths`` (P, G).
"""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.advantages import centred, deviation
from mm_cpgd.algorithms.part_info import described


@described(
    "A = X / (std_batch X + {eps}), X = Σ over the rules of weight·(c − mean c) / (std c + {eps}), c the "
    "rule's score",
    source="GDPO, arXiv 2601.05242; as in TRL",
    group="by rule or length",
    use="several rules, some of which are easier or have a smaller spread than others",
)
def gdpo(
    rewards: Tensor, components: Tensor, weights: Tensor, shaping: Tensor, *, eps: PositiveFloat = 1e-6
) -> Tensor:
    """GDPO: every rule is normalised within the group by itself, the sum over the batch.

    Normalising the sum of the rules gives the same advantage to different combinations of scores: with two
    completions, to one that is better by one rule and to one that is better by both. A rule whose scores are
    all equal within the group adds 0. Additions of shaping parts count as one more rule of weight 1. The mean
    of X over the batch is 0, as each rule's is within each group, so that it is not subtracted once more.

    Args:
        rewards: (P, G), NaN where unscored.
        components: (P, G, R), NaN where a rule has no score.
        weights: (R,).
        shaping: (P, G).
        eps: keeps the quotients finite.

    Returns:
        (P, G).
    """
    unscored = rewards.isnan()
    total = torch.zeros_like(rewards)
    every = [*components.unbind(2), shaping.expand_as(rewards)]
    for scores, weight in zip(every, [*weights.tolist(), 1.0], strict=True):
        own = scores.to(rewards).masked_fill(unscored, float("nan"))
        total = total + weight * centred(own) / (deviation(own) + eps)
    scored = total.masked_fill(unscored, float("nan")).reshape(1, -1)
    return total.masked_fill(unscored, 0.0) / (deviation(scored) + eps)


@described(
    "A = (R − mean) / (std_batch(R − mean) + {eps})·(mean L / L), L the tokens of the prompt's completions",
    source="ScaleRL, arXiv 2510.13786, section 4",
    group="by rule or length",
    use="with token_mean, where every prompt should count alike whatever the length of its completions",
    differs=(
        "The paper takes the mean over the tokens of each prompt, then over prompts. Here token_mean is the "
        "aggregation and L is in the advantage, which is the same for one optimizer step a batch, as in the "
        "paper; of several mini-batches each has a factor, its mean L by that of the batch.",
    ),
)
def scale_rl(rewards: Tensor, lengths: Tensor, *, eps: PositiveFloat = 1e-6) -> Tensor:
    """ScaleRL: normalised over the batch, every prompt with the same weight.

    Args:
        rewards: (P, G), NaN where unscored.
        lengths: (P, G) tokens.
        eps: keeps the quotient finite.

    Returns:
        (P, G).
    """
    unscored = rewards.isnan()
    spread = centred(rewards).masked_fill(unscored, float("nan"))
    tokens = lengths.to(rewards).masked_fill(unscored, 0.0).sum(dim=1, keepdim=True)
    taking_part = tokens > 0
    mean = tokens.sum() / taking_part.sum().clamp(min=1)
    factor = torch.where(taking_part, mean / tokens.clamp(min=1), 0.0)
    return spread.nan_to_num(0.0) / (deviation(spread.reshape(1, -1)) + eps) * factor
