"""How much better a completion is than was to be expected.

A part takes ``rewards`` (P, G) of all processes, NaN where a completion could not be scored, and returns
advantages (P, G). An unscored completion leaves every statistic and has advantage 0. Standard deviations are
unbiased (n − 1), as in the public implementations; papers leave it open. A group whose rewards are all equal
has advantage exactly 0: rounding of its mean, divided by a standard deviation of nearly 0, would otherwise
pass for a signal.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.limits import AboveOne
from mm_cpgd.algorithms.selection import has_signal


def cpgd(
    rewards: Tensor,
    *,
    weight: Literal["equal", "std", "clip_filter"] = "std",
    cap: AboveOne = 3.0,
    eps: PositiveFloat = 1e-6,
) -> Tensor:
    """A = ω·(R − mean of the group), with the weight ω of CPGD (arXiv 2505.12504).

    Args:
        rewards: (P, G), NaN where unscored.
        weight: *equal* ω = 1; *std* ω = 1/(std of the group + eps); *clip_filter* ω = min(cap, prompts /
            prompts whose rewards are not all equal), as if the batch had been refilled with prompts that
            carry a signal.
        cap: bound of the clip-filter-like weight.
        eps: keeps the std weight finite.

    Returns:
        (P, G).
    """
    if weight == "std":
        return _centred(rewards) / (_std(rewards) + eps)
    if weight == "clip_filter":
        return _centred(rewards) * _clip_filter_weight(rewards, cap)
    return _centred(rewards)


def grpo(rewards: Tensor, *, eps: PositiveFloat = 1e-6) -> Tensor:
    """A = (R − mean) / (std + eps) within the group: GRPO (arXiv 2402.03300, sec. 4.1). (P, G) to (P, G)."""
    return _centred(rewards) / (_std(rewards) + eps)


def rloo(rewards: Tensor) -> Tensor:
    """A = R − mean of the group's *other* completions: RLOO (arXiv 2402.14740). (P, G) to (P, G).

    With n scored completions this is n/(n − 1)·(R − mean).
    """
    scored = _scored(rewards).sum(dim=1, keepdim=True)
    return _centred(rewards) * scored / (scored - 1).clamp(min=1)


def group_mean(rewards: Tensor) -> Tensor:
    """A = R − mean of the group: Dr. GRPO (arXiv 2503.20783), REINFORCE with baseline. (P, G) to (P, G)."""
    return _centred(rewards)


def reinforce_pp(
    rewards: Tensor, *, baseline: Literal["none", "group"] = "none", eps: PositiveFloat = 1e-6
) -> Tensor:
    """Normalise over the whole batch: A = (X − mean of X) / (std of X + eps), REINFORCE++ (arXiv 2501.03262).

    Moments are over completions; implementations that spread the reward over tokens weight them by length.
    The paper's KL inside the reward is left out: use the ``kl`` regularizer.

    Args:
        rewards: (P, G), NaN where unscored.
        baseline: X is the reward (*none*, any G), or the reward less the group's mean (*group*, "w/
            baseline").
        eps: keeps the quotient finite.

    Returns:
        (P, G).
    """
    values = rewards if baseline == "none" else _centred(rewards).masked_fill(~_scored(rewards), float("nan"))
    batch = values.reshape(1, -1)
    return (_centred(batch) / (_std(batch) + eps)).reshape(rewards.shape)


def _scored(rewards: Tensor) -> Tensor:
    """(P, G) bool."""
    return ~rewards.isnan()


def _mean(rewards: Tensor) -> Tensor:
    """Mean of each row's scored rewards, (P, 1); 0 where there are none."""
    return rewards.nansum(dim=1, keepdim=True) / _scored(rewards).sum(dim=1, keepdim=True).clamp(min=1)


def _std(rewards: Tensor) -> Tensor:
    """Unbiased standard deviation of each row's scored rewards, (P, 1); 0 for fewer than two."""
    squares = (rewards - _mean(rewards)).square().nansum(dim=1, keepdim=True)
    return (squares / (_scored(rewards).sum(dim=1, keepdim=True) - 1).clamp(min=1)).sqrt()


def _centred(rewards: Tensor) -> Tensor:
    """Rewards less their row's mean, (P, G); 0 where unscored and in rows without a signal."""
    counts = _scored(rewards) & has_signal(rewards)[:, None]
    return torch.where(counts, rewards - _mean(rewards), torch.zeros_like(rewards))


def _clip_filter_weight(rewards: Tensor, cap: float) -> Tensor:
    """min(cap, prompts / prompts with a signal), a scalar; prompts without any scored completion left out."""
    prompts = _scored(rewards).any(dim=1).sum().to(rewards.dtype)
    return (prompts / has_signal(rewards).sum().clamp(min=1)).clamp(max=cap)
