"""Advantages from the group's probabilities under the old policy: a baseline by token, a target distribution.

Inputs and results are those of ``token_advantages``. The parts replace the advantages of those before them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import Share, described
from mm_cpgd.algorithms.regularizers import LARGEST_LOG_RATIO


@described(
    "A_t ← R − Σ R·W_t / Σ W_t over the group's completions of at least t tokens, W_t = Σ up to t of s, "
    "s = 1 − 2π + Σ_v π_v² of the old policy",
    source="optimal token baseline, arXiv 2602.07078, and verl's implementation",
    use="small groups of long completions, whose gradients are noisy",
    differs=(
        "The authors take Σ_v π_v² from the logits. Here it is estimated from the entropy H by its lower "
        "bound e^−H, which is exact where the tokens that are possible are equally likely, and s is at least "
        "(1 − π)². No setting does this.",
        "verl's implementation takes a baseline of 0 behind the end of the second longest completion, where "
        "the longest is alone. Here it is that completion's own reward, so that those tokens, and groups "
        "without a signal, have advantage 0. For verl's set tail to reward.",
    ),
)
def optimal_baseline(
    rewards: Tensor,
    old_logprobs: Tensor,
    old_entropy: Tensor,
    mask: Tensor,
    prompt_of: Tensor,
    *,
    tail: Literal["zero", "reward"] = "zero",
) -> Tensor:
    """Baseline of least variance for each token: rewards weighted by the gradients up to it.

    s estimates the squared norm of the token's gradient with respect to its logits, W_t that of the
    completion up to t. A completion of nearly certain tokens has little weight in the baseline.

    Args:
        rewards: (N,).
        old_logprobs: (N, T).
        old_entropy: (N, T), nats.
        mask: (N, T).
        prompt_of: (N,).
        tail: advantage of tokens at which no other completion of the group goes on: 0, or the *reward*.

    Returns:
        (N, T).
    """
    probability = old_logprobs.clamp(max=0.0).exp()
    norm = torch.maximum(1 - 2 * probability + (-old_entropy).exp(), (1 - probability).square())
    weight = torch.where(mask, torch.where(mask, norm, 0.0).cumsum(1), 0.0)
    found = torch.zeros_like(weight)
    for rows in groups_of(prompt_of):
        reward, own = rewards[rows, None].to(weight), mask[rows]
        total = weight[rows].sum(0)
        # Certain tokens alone have no weight: there every completion counts alike.
        share = torch.where(total > 0, weight[rows] / total, own / own.sum(0).clamp(min=1))
        baseline = (share * reward).sum(0)
        alone = own.sum(0) < 2
        behind = reward if tail == "reward" else torch.zeros_like(reward)
        found[rows] = torch.where(own, torch.where(alone, behind, reward - baseline), 0.0)
    return found


@described(
    "A ← ±n·mean over the pairs (i, j) of R_i > R_j in the group of n of {beta}·σ(−{beta}·m), + for i, − for "
    "j; m = the difference of ln π_old(y) − ln π_ref(y)",
    source="DPO, arXiv 2305.18290, on pairs of the policy's own samples; the trace-based half of BVPO, "
    "arXiv 2510.05095",
    use="rewards that only order answers; a bounded gradient for answers already told apart",
    differs=(
        "BVPO mixes this loss with that of answers after an empty thought. Here there is the former alone; "
        "the part bvpo does both.",
        "The authors make one pair for each prompt by a reward model. Here all pairs of different rewards "
        "count, each prompt as one.",
    ),
)
def preference(
    rewards: Tensor,
    old_logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    prompt_of: Tensor,
    *,
    beta: PositiveFloat = 0.1,
) -> Tensor:
    """Gradient of the DPO loss −ln σ(β·m), mean over a group's pairs, as advantages of its completions.

    With the surrogate ``policy_gradient`` and ``completion_sum`` it is exact at the first optimizer step on a
    rollout batch. Groups without a signal have no pair and advantage 0. Margins are sums over tokens: for
    long completions take a small β, or σ saturates.

    Args:
        rewards: (N,).
        old_logprobs: (N, T).
        reference_logprobs: (N, T).
        mask: (N, T).
        prompt_of: (N,).
        beta: DPO's β.

    Returns:
        (N, T).
    """
    margin = torch.where(mask, old_logprobs - reference_logprobs, 0.0).sum(1)
    found = torch.zeros_like(margin)
    for rows in groups_of(prompt_of):
        found[rows] = pair_advantages(rewards[rows], margin[rows], beta, len(rows))
    return torch.where(mask, found[:, None], 0.0)


def pair_advantages(rewards: Tensor, margin: Tensor, beta: float, count: int) -> Tensor:
    """Return ±count·mean over the pairs of different rewards of β·σ(−β·m); 0 without a pair.

    Args:
        rewards: (n,).
        margin: (n,) ln π_old(y) − ln π_ref(y).
        beta: DPO's β.
        count: completions over which an aggregation takes the mean.
    """
    better = rewards[:, None] > rewards[None]
    if not better.any():
        return torch.zeros_like(margin)
    weight = beta * torch.sigmoid(-beta * (margin[:, None] - margin[None])) * better
    return (weight.sum(1) - weight.sum(0)) * count / better.sum()


Divergence = Literal["forward_kl", "reverse_kl", "js", "tv", "chi2", "reverse_chi2"]
UNBOUNDED = ("reverse_kl", "reverse_chi2")
"""Divergences that are infinite where the target has probability 0."""


@described(
    "A ← g − mean of g of the group's others, g = −f′(t), ln t = ln π_old(y) − ln P(y) + ln Z, Z the group's "
    "mean of P/π_old",
    source="f-DPG, arXiv 2302.08215, and the authors' code; Z by group: this project's",
    use="diverse right answers; a target distribution in place of the largest reward",
    choice="target",
    variants={
        "right": "P = π_ref(y) for answers of accuracy of at least {least}, else 0",
        "tilted": "P = π_ref(y)·e^(R / {beta})",
    },
    differs=(
        "The authors estimate Z by a running mean for each target, and take the mean of the last 1,024 "
        "pseudo-rewards as the baseline. Here both are of the prompt's completions, as targets depend on the "
        "prompt. No setting does this.",
    ),
)
def f_divergence(
    rewards: Tensor,
    accuracy: Tensor,
    old_logprobs: Tensor,
    reference_logprobs: Tensor,
    mask: Tensor,
    prompt_of: Tensor,
    *,
    divergence: Divergence = "js",
    target: Literal["right", "tilted"] = "right",
    beta: PositiveFloat = 1.0,
    least: Share = 1.0,
) -> Tensor:
    """Fit the policy to a target distribution P/Z by minimising an f-divergence from it.

    With *tilted* and *reverse_kl* it is RLOO on R − β·(ln π_old − ln π_ref) of the completion, divided by β.
    With *right* the target is the reference, given that it is right: a group of right answers alone keeps an
    advantage, which holds their proportions to the reference's. A group whose target is 0 everywhere has
    advantage 0. The gradient is exact at the first optimizer step on a rollout batch. ln t is bounded by ±20.

    Args:
        rewards: (N,).
        accuracy: (N,) in [0, 1].
        old_logprobs: (N, T).
        reference_logprobs: (N, T).
        mask: (N, T).
        prompt_of: (N,).
        divergence: *forward_kl* KL(P ‖ π), *reverse_kl* KL(π ‖ P), *js* Jensen-Shannon, *tv* total variation,
            *chi2* χ²(P ‖ π), *reverse_chi2* χ²(π ‖ P).
        target: *right* or *tilted*.
        beta: temperature of *tilted*, in units of reward.
        least: lowest accuracy of *right*.

    Returns:
        (N, T).
    """
    drift = torch.where(mask, old_logprobs - reference_logprobs, 0.0).sum(1)
    wrong = torch.full_like(drift, -math.inf)
    bonus = rewards / beta if target == "tilted" else torch.where(accuracy >= least, 0.0, wrong)
    log_weight = bonus.to(drift) - drift
    found = torch.zeros_like(drift)
    for rows in groups_of(prompt_of):
        log_z = log_weight[rows].logsumexp(0) - math.log(len(rows))
        if len(rows) < 2 or log_z.isinf():
            continue
        log_t = (log_z - log_weight[rows]).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        gain = -divergence_slope(log_t, divergence)
        found[rows] = (gain - gain.mean()) * len(rows) / (len(rows) - 1)
    return torch.where(mask, found[:, None], 0.0)


def divergence_slope(log_t: Tensor, divergence: str) -> Tensor:
    """Return f′(t) of the divergence E_P[f(π/P)], in the shape of ``log_t`` = ln t."""
    if divergence == "forward_kl":
        return -(-log_t).exp()
    if divergence == "reverse_kl":
        return log_t + 1
    if divergence == "js":
        return math.log(2) - torch.nn.functional.softplus(-log_t)
    if divergence == "tv":
        return log_t.sign() / 2
    return 1 - (-2 * log_t).exp() if divergence == "chi2" else 2 * torch.expm1(log_t)


def groups_of(prompt_of: Tensor) -> list[Tensor]:
    """Return the rows of each prompt."""
    return [(prompt_of == prompt).nonzero().squeeze(1) for prompt in sorted(set(prompt_of.tolist()))]
