"""Advantages: rewards of completions relative to a baseline.

A part takes ``rewards`` (P, G) of all processes, NaN where a completion could not be scored, and returns
advantages (P, G). An unscored completion is excluded from all statistics and has advantage 0. Standard
deviations are unbiased (n − 1), as in the public implementations; the papers do not specify it. A group whose
rewards are all equal has advantage exactly 0: the rounding error of its mean, divided by a standard deviation
of nearly 0, would otherwise look like a signal.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import AboveOne, OpenShare, described
from mm_cpgd.algorithms.selection import has_signal
from mm_cpgd.errors import UserError


@described(
    "A = ω·(R − mean)",
    source="CPGD, arXiv 2505.12504",
    choice="weight",
    variants={
        "equal": "ω = 1",
        "std": "ω = 1 / (std + {eps})",
        "clip_filter": "ω = min({cap}, prompts / prompts with a signal)",
    },
    group="within the group",
    use="first choice with the surrogate cpgd; clip_filter where many groups are all right or all wrong",
)
def cpgd(
    rewards: Tensor,
    *,
    weight: Literal["equal", "std", "clip_filter"] = "std",
    cap: AboveOne = 3.0,
    eps: PositiveFloat = 1e-6,
) -> Tensor:
    """CPGD: reward minus the group's mean, weighted.

    Args:
        rewards: (P, G), NaN where unscored.
        weight: ω; *clip_filter* weights the prompts with a signal as if they filled the whole batch.
        cap: upper bound of the *clip_filter* weight.
        eps: keeps the *std* weight finite.

    Returns:
        (P, G).
    """
    if weight == "std":
        return centred(rewards) / (deviation(rewards) + eps)
    if weight == "clip_filter":
        return centred(rewards) * _clip_filter_weight(rewards, cap)
    return centred(rewards)


@described(
    "A = (R − mean) / (std + {eps})",
    source="GRPO, arXiv 2402.03300, section 4.1",
    group="within the group",
    use="the common choice; prompts count alike whatever their rewards' spread",
)
def grpo(rewards: Tensor, *, eps: PositiveFloat = 1e-6) -> Tensor:
    """GRPO: normalised within the group; (P, G) to (P, G)."""
    return centred(rewards) / (deviation(rewards) + eps)


@described(
    "A = R − mean of the group's others",
    source="RLOO, arXiv 2402.14740",
    group="within the group",
    use="unbiased with any group size; rewards keep their scale",
)
def rloo(rewards: Tensor) -> Tensor:
    """RLOO: leave-one-out baseline; (P, G) to (P, G).

    With n scored completions this is n/(n − 1)·(R − mean).
    """
    scored = _scored(rewards).sum(dim=1, keepdim=True)
    return centred(rewards) * scored / (scored - 1).clamp(min=1)


@described(
    "A = R − mean",
    source="Dr. GRPO, arXiv 2503.20783; REINFORCE with a baseline",
    group="within the group",
    use="rewards keep their scale, hard and easy prompts count less than mixed ones",
)
def group_mean(rewards: Tensor) -> Tensor:
    """Group mean as baseline, without normalisation; (P, G) to (P, G)."""
    return centred(rewards)


@described(
    "A = (X − mean_batch X) / (std_batch X + {eps})",
    source="REINFORCE++, arXiv 2501.03262",
    choice="baseline",
    variants={"none": "X = R", "group": "X = R − mean"},
    differs=(
        "verl and OpenRLHF assign the reward to every token and take the moments over tokens, so that long "
        "completions weigh more. Here they are over completions: R = (1, 0, 0) with 10, 10 and 40 tokens "
        "gives (1.155, −0.577, −0.577), theirs (2.217, −0.443, −0.443). For theirs set over to tokens.",
        "The paper subtracts a KL estimate from the reward. Here there is none in the reward; the "
        "regularizer kl adds one to the loss.",
    ),
    group="over the batch",
    use="one completion for each prompt, or rewards of one scale over all prompts",
)
def reinforce_pp(
    rewards: Tensor,
    lengths: Tensor | None = None,
    *,
    baseline: Literal["none", "group"] = "none",
    over: Literal["completions", "tokens"] = "completions",
    eps: PositiveFloat = 1e-6,
) -> Tensor:
    """REINFORCE++: normalised over the whole batch.

    The paper's KL term inside the reward is left out: use the ``kl`` regularizer.

    Args:
        rewards: (P, G), NaN where unscored.
        lengths: (P, G) tokens; for *tokens* alone.
        baseline: *none* works for any G; *group* is the paper's "w/ baseline".
        over: what the moments are over; with *tokens* a completion counts as often as it has tokens.
        eps: keeps the quotient finite.

    Returns:
        (P, G).
    """
    values = rewards if baseline == "none" else centred(rewards).masked_fill(~_scored(rewards), float("nan"))
    batch = values.reshape(1, -1)
    if over == "tokens":
        assert lengths is not None
        return _normalised_over_tokens(values, lengths, eps)
    return (centred(batch) / (deviation(batch) + eps)).reshape(rewards.shape)


@described(
    "A = (p̃ − p) / f(p; α, β), p̃ = (R − {low}) / ({high} − {low}), p = mean p̃, f the density of the Beta "
    "distribution with α = max(1, 1 + a/3), β = max(1, 1 + b/3), where Beta(a, b) has the mean and "
    "variance of p over the batch's prompts",
    source="BNPO, arXiv 2506.02864",
    differs=(
        "The paper decomposes into one advantage for each reward rule and adds them. Here the advantage is "
        "that of the weighted sum, which is the same for a single rule.",
    ),
    group="over the batch",
    use="rewards of 0 and 1 whose success rates drift during the run",
)
def bnpo(rewards: Tensor, *, low: float = 0.0, high: float = 1.0, floor: OpenShare = 1e-6) -> Tensor:
    """BNPO: normalised by a Beta distribution fitted to the prompts' success rates.

    α = β = 1 is the plain group mean, α = β = 3/2 is GRPO up to a factor. Not to be confused with TRL's
    loss_type "bnpo", which normalises over tokens, not rewards: that is ``token_mean`` here. The paper's
    decomposition into one advantage per reward rule is left out.

    Args:
        rewards: (P, G), NaN where unscored.
        low: smallest reward that the rules can give; the paper's rewards are 0 and 1.
        high: largest reward that the rules can give.
        floor: lower bound of the density in the denominator; the paper's code bounds its inverse.

    Returns:
        (P, G).

    Raises:
        UserError: a reward outside [low, high].
    """
    scored = rewards[_scored(rewards)]
    if (scored < low).any() or (scored > high).any():
        raise UserError(
            f"algorithm.advantage: bnpo: rewards from {scored.min():g} to {scored.max():g} do not lie in "
            f"low = {low:g} to high = {high:g}; set these to the smallest and the largest reward that the "
            "rules can give."
        )
    rates = (rewards - low) / (high - low)
    p = _mean(rates)
    alpha, beta = beta_parameters(p[_scored(rewards).any(dim=1)])
    inside = p.clamp(torch.finfo(p.dtype).eps, 1 - torch.finfo(p.dtype).eps)
    log_density = (
        (alpha - 1) * inside.log()
        + (beta - 1) * (-inside).log1p()
        + (alpha + beta).lgamma()
        - alpha.lgamma()
        - beta.lgamma()
    )
    return centred(rates) / log_density.exp().clamp(min=floor)


@described(
    "A = (R − mean) / (mean + {eps})",
    source="MaxRL, arXiv 2602.02710, algorithm 1",
    group="within the group",
    use="rewards of 0 and 1, many prompts that are rarely solved",
)
def maxrl(rewards: Tensor, *, eps: PositiveFloat = 1e-6) -> Tensor:
    """MaxRL: the group's mean as the scale too, which approaches the gradient of ln(success rate).

    With rewards of 0 and 1 and K successes among G, a success has G/K − 1 and a failure −1: the mean over the
    group of A·∇log π is the mean of ∇log π over the successes, less that over all. Its expectation is the
    gradient of the log-likelihood ln p, expanded in 1 − p up to order G − 1. The factor 1/G of the paper's
    algorithm is the aggregation's.

    Args:
        rewards: (P, G), NaN where unscored; not negative.
        eps: keeps the quotient finite, as in the authors' code.

    Returns:
        (P, G).

    Raises:
        UserError: a negative reward, with which the mean is no scale.
    """
    scored = rewards[_scored(rewards)]
    if (scored < 0).any():
        raise UserError(
            f"algorithm.advantage: maxrl: a reward of {scored.min():g} is negative; maxrl divides by the "
            "group's mean reward and needs rewards of at least 0. Use rules that give none below 0, and no "
            "penalty in shaping."
        )
    return centred(rewards) / (_mean(rewards) + eps)


@described(
    "A = 1",
    source="maximum likelihood; RAFT, arXiv 2304.06767",
    group="without a baseline",
    use="imitation of the completions that a completions part keeps",
)
def one(rewards: Tensor) -> Tensor:
    """Imitation of the completions that a ``completions`` part keeps; (P, G) to (P, G)."""
    return torch.ones_like(rewards).masked_fill(~_scored(rewards), 0.0)


def beta_parameters(p: Tensor) -> tuple[Tensor, Tensor]:
    """Return BNPO's α and β of least variance for success rates p (P, 1); 1 and 1 where p is constant.

    Beta(a, b) is fitted by moments, with unbiased variance; α = 1 + a/3, β = 1 + b/3, at least 1.
    """
    mean = p.mean() if p.numel() else p.new_zeros(())
    variance = p.var() if p.numel() > 1 else p.new_zeros(())
    if variance <= 0:
        return p.new_ones(()), p.new_ones(())
    size = mean * (1 - mean) / variance - 1
    return (1 + size * mean / 3).clamp(min=1), (1 + size * (1 - mean) / 3).clamp(min=1)


def _normalised_over_tokens(values: Tensor, lengths: Tensor, eps: float) -> Tensor:
    """Return values (P, G) less their mean over all tokens, by their unbiased deviation; 0 where NaN."""
    tokens = lengths.to(values) * _scored(values)
    known = values.nan_to_num(0.0)
    if not has_signal(values.reshape(1, -1)):
        return torch.zeros_like(values)
    mean = (tokens * known).sum() / tokens.sum().clamp(min=1)
    variance = (tokens * (known - mean).square()).sum() / (tokens.sum() - 1).clamp(min=1)
    return torch.where(_scored(values), known - mean, 0.0) / (variance.sqrt() + eps)


def _scored(rewards: Tensor) -> Tensor:
    """Return where rewards are scored, (P, G) bool."""
    return ~rewards.isnan()


def _mean(rewards: Tensor) -> Tensor:
    """Return the mean of each row's scored rewards, (P, 1); 0 where there are none."""
    return rewards.nansum(dim=1, keepdim=True) / _scored(rewards).sum(dim=1, keepdim=True).clamp(min=1)


def deviation(rewards: Tensor) -> Tensor:
    """Return the unbiased standard deviation of each row's scored rewards, (P, 1); 0 for fewer than two."""
    squares = (rewards - _mean(rewards)).square().nansum(dim=1, keepdim=True)
    return (squares / (_scored(rewards).sum(dim=1, keepdim=True) - 1).clamp(min=1)).sqrt()


def centred(rewards: Tensor) -> Tensor:
    """Return rewards minus their row's mean, (P, G); 0 where unscored and in rows without a signal."""
    counts = _scored(rewards) & has_signal(rewards)[:, None]
    return torch.where(counts, rewards - _mean(rewards), torch.zeros_like(rewards))


def _clip_filter_weight(rewards: Tensor, cap: float) -> Tensor:
    """Return min(cap, prompts / prompts with a signal), a scalar; prompts without any score do not count."""
    prompts = _scored(rewards).any(dim=1).sum().to(rewards.dtype)
    return (prompts / has_signal(rewards).sum().clamp(min=1)).clamp(max=cap)
