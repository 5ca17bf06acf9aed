"""Advantages from completions with given tokens: answers asked for early, and answers without a thought.

Inputs and results are those of ``token_advantages``; ``early_scores``, ``early_budgets`` and ``thinking`` are
there with ``algorithm.early_answers``, ``empty_thought`` with ``algorithm.empty_thought``.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.methods.group_targets import groups_of, pair_advantages
from mm_cpgd.algorithms.part_info import Share, described

Prior = Literal["base", "uniform", "linear"]


def prior_weights(prior: Prior, budgets: Tensor) -> Tensor:
    """Return the weights (S,) of S rising budgets, of sum 1: all on the last, equal, or in proportion."""
    if prior == "uniform":
        return torch.full_like(budgets, 1 / len(budgets))
    if prior == "linear":
        return budgets / budgets.sum()
    weights = torch.zeros_like(budgets)
    weights[-1] = 1.0
    return weights


def budget_advantages(scores: Tensor, weights: Tensor) -> Tensor:
    """Return BRPO's advantages of the segments between budgets.

    A_s = r_s − (s·V1_s + (S − s)·V2_s) / S for s = 0 … S − 1, r_s = Σ_{u ≥ s} P_u·c_u. V1_s is the mean of
    the completion's own c_u of u < s with the weights 2^u, times Σ_{u ≥ s} P_u; V2_s the group's mean of r_s.

    Args:
        scores: c, (G, S) of a group's completions at S budgets; NaN where none is known.
        weights: P, (S,), of sum 1.

    Returns:
        (G, S); 0 where a score that the segment leads to is unknown. Unknown scores have no part in V1 and
        V2; where V1 has none, V2 takes its place.
    """
    size = scores.shape[1]
    ahead = weights.flip(0).cumsum(0).flip(0)
    returns = (scores * weights).flip(1).cumsum(1).flip(1)
    group = returns.nanmean(0)
    factors = torch.where(scores.isnan(), 0.0, 2.0 ** torch.arange(size).to(scores))
    before = factors.cumsum(1) - factors
    reached = (scores.nan_to_num(0.0) * factors).cumsum(1) - scores.nan_to_num(0.0) * factors
    own = torch.where(before > 0, reached / before.clamp(min=1.0) * ahead, group)
    place = torch.arange(size).to(scores)
    found = returns - (place * own + (size - place) * group) / size
    return found.nan_to_num(0.0)


@described(
    "A ← r_s − (s·V1_s + (S − s)·V2_s) / S for tokens of the thinking between budgets s and s + 1 of S; "
    "r_s = Σ from u = s of P_u·c_u, c_u the score of an answer at budget u, the last one's the reward; V1_s "
    "the own mean of the c before, weighted by 2^u, times Σ from u = s of P_u; V2_s the group's mean of r_s; "
    "P {prior}",
    source="AnytimeReasoner's BRPO, arXiv 2505.13438, and the authors' code",
    use="answers that may be asked for before the thinking ends",
    differs=(
        "The authors learn from the answers at all budgets too, each against those of the same thinking and "
        "budget. Here they are scored and not learned from; the completion's own answer keeps its advantage. "
        "No setting does this.",
        "The authors ask for an answer at the end of the thinking too. Here the completion's own answer is "
        "that one, and its reward, with shaping, the last score. No setting does this.",
    ),
)
def brpo(
    advantages: Tensor,
    rewards: Tensor,
    early_scores: Tensor,
    early_budgets: Tensor,
    thinking: Tensor,
    prompt_of: Tensor,
    mask: Tensor,
    *,
    prior: Prior = "uniform",
) -> Tensor:
    """Dense rewards along one thinking: each part of it is credited with the answers that it leads to.

    A thinking that ends before a budget has the completion's reward as its score there. Without early
    answers, S = 1, it is ``group_mean``. Unlike the reward's, these advantages need not be 0 in a group whose
    rewards are equal: selection by signal leaves such groups out.

    Args:
        advantages: (N, T); stay at tokens behind the thinking.
        rewards: (N,).
        early_scores: (N, S − 1) mean total reward of the answers at each budget but the last; NaN where the
            thinking ended before, or none could be scored.
        early_budgets: (N, S) rising numbers of tokens, equal in all rows; the last is the length limit.
        thinking: (N,) tokens of the thinking.
        prompt_of: (N,).
        mask: (N, T).
        prior: P, by the last budget alone (*base*), *uniform*, or in proportion to the budgets (*linear*).

    Returns:
        (N, T).
    """
    if not len(rewards):
        return advantages
    weights = prior_weights(prior, early_budgets[0].to(advantages))
    ended = early_budgets[:, :-1] >= thinking[:, None]
    scores = torch.where(ended, rewards[:, None], early_scores)
    scores = torch.cat([scores, rewards[:, None]], 1).to(advantages)
    segments = torch.zeros_like(scores)
    for rows in groups_of(prompt_of):
        segments[rows] = budget_advantages(scores[rows], weights)
    place = torch.arange(mask.shape[1])
    segment = torch.searchsorted(early_budgets[0, :-1].contiguous(), place.to(early_budgets), right=True)
    return torch.where(place < thinking[:, None], segments[:, segment], advantages)


@described(
    "A ← preference by {beta} among the group's completions with a thought, times {trace_share}, and among "
    "those after an empty thought, times 1 − {trace_share}",
    source="BVPO, arXiv 2510.05095",
    use="long thinking, whose preference gradient is noisy, where answers without it are better than chance",
    differs=(
        "The authors make one pair for each prompt and half by a reward model. Here all pairs of different "
        "rewards of a half count, each prompt as one, and a half without a pair as 0.",
        "The authors derive the share of least squared error, which needs the true gradient. Here it is a "
        "number: half by default, this project's choice.",
    ),
)
def bvpo(
    rewards: Tensor,
    old_logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    prompt_of: Tensor,
    empty_thought: Tensor,
    *,
    beta: PositiveFloat = 0.1,
    trace_share: Share = 0.5,
) -> Tensor:
    """Gradient of the mixture of two DPO losses: of completions with a thought, and after an empty one.

    The gradient of the first has the variance of the sampled thoughts, that of the second a bias instead.
    With the surrogate ``policy_gradient`` and ``completion_sum`` it is exact at the first optimizer step on a
    rollout batch. A share of 1 is ``preference`` on the first half, one of 0 on the second.

    Args:
        rewards: (N,).
        old_logprobs: (N, T).
        reference_logprobs: (N, T).
        mask: (N, T); given tokens are not in it.
        prompt_of: (N,).
        empty_thought: (N,) 1 where a completion was sampled after an empty thought, else 0.
        beta: DPO's β.
        trace_share: weight of the completions with a thought; that of the others is 1 − trace_share.

    Returns:
        (N, T).
    """
    margin = torch.where(mask, old_logprobs - reference_logprobs, 0.0).sum(1)
    found = torch.zeros_like(margin)
    for rows in groups_of(prompt_of):
        for empty, share in ((0, trace_share), (1, 1 - trace_share)):
            half = rows[empty_thought[rows] == empty]
            found[half] = share * pair_advantages(rewards[half], margin[half], beta, len(rows))
    return torch.where(mask, found[:, None], 0.0)
