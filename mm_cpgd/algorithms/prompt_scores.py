"""How much a prompt promises to teach, for samplers that draw some prompts more often than others.

A part takes any of ``accuracy`` (P, G), NaN where a completion could not be scored, and ``diversity`` (P,),
and returns scores (P,) ≥ 0. ``data.ScoredPromptSampler`` remembers them and draws in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeFloat
from torch import Tensor

from mm_cpgd.algorithms.described import described
from mm_cpgd.algorithms.limits import OpenShare


@described(
    "score = {outcome}·p·(1 − p) + {variety}·d, p mean accuracy of the prompt's completions, d their share "
    "of distinct bigrams; {share} of each batch is drawn in proportion to it, the rest from all alike",
    source="variance-aware sampling, MMR1, arXiv 2509.21268",
)
def variance_aware(
    accuracy: Tensor,
    diversity: Tensor,
    *,
    outcome: NonNegativeFloat = 0.8,
    variety: NonNegativeFloat = 0.2,
    share: OpenShare = 0.5,
) -> Tensor:
    """MMR1's variance promotion score: outcome variance and diversity of the trajectories.

    MMR1 scores every prompt by rollouts of its own now and then; here a prompt's score is that of its last
    rollout in training, which costs nothing, and prompts without one come from the uniform part.

    Args:
        accuracy: (P, G) in [0, 1], NaN where unscored.
        diversity: (P,) in [0, 1], see ``distinct_share``.
        outcome: weight of the outcome's variance.
        variety: weight of the diversity.
        share: of a batch that is drawn by score; read by the sampler.

    Returns:
        (P,); 0 where no completion could be scored.
    """
    p = accuracy.nanmean(dim=1)
    return (outcome * p * (1 - p) + variety * diversity).nan_to_num(0.0)


def distinct_share(completions: Sequence[Sequence[int]], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of a group's completions (Distinct-n, arXiv 1510.03055); 0 for none.

    Args:
        completions: token ids of each.
        n: length of the grams.
    """
    grams = [tuple(ids[i : i + n]) for ids in completions for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
