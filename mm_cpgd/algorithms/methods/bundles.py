"""Credit by bundle: several prompts tied together, of whose joint scores the worst teach most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.part_info import OpenShare, described
from mm_cpgd.algorithms.token_weights import quantile

# Below it a standard deviation counts as none, as in the authors' code.
SMALLEST_STD = 1e-3


class QuantileTracker:
    """Two quantiles of the bundles' scores over the run: q ← q + η·(level − share of scores below q).

    Args:
        low: the lower level.
        high: the upper level.
        eta: step of the tracking, in units of reward.
        bundle: prompts tied together.

    Attributes:
        values: both quantiles; None before the first iteration has been noted.
        unbundled: share of the newest iteration's prompts that no whole bundle was left for.
    """

    def __init__(self, low: float = 0.2, high: float = 0.8, eta: float = 0.1, bundle: int = 5) -> None:
        self.levels = (low, high)
        self.eta, self.bundle = eta, bundle
        self.values: tuple[float, float] | None = None
        self.unbundled = 0.0

    def of(self, scores: Tensor) -> tuple[float, float]:
        """Return the quantiles as they are before these scores (n,): tracked, or their own at first."""
        if self.values is not None:
            return self.values
        low, high = (float(quantile(scores.flatten(), level)) for level in self.levels)
        return low, high

    def note(self, outcomes: Outcomes) -> None:
        """Move both quantiles by an iteration's scores; the first iteration's are their start."""
        rewards = outcomes.rewards[~outcomes.rewards.isnan().all(1)]
        self.unbundled = len(rewards) % self.bundle / max(1, len(rewards))
        scores = bundle_scores(rewards, self.bundle).flatten()
        scores = scores[~scores.isnan()]
        if not scores.numel():
            return
        if self.values is None:
            self.values = self.of(scores)
            return
        below = [float((scores < value).double().mean()) for value in self.values]
        low, high = (
            value + self.eta * (level - share)
            for value, level, share in zip(self.values, self.levels, below, strict=True)
        )
        self.values = (low, high)

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Nothing is learned from an optimizer step."""

    def metrics(self) -> dict[str, float]:
        """Return the share of prompts without a bundle, and both quantiles once there are some."""
        low, high = self.values or (float("nan"), float("nan"))
        return {"unbundled": self.unbundled, "quantile_low": low, "quantile_high": high}

    def state_dict(self) -> dict[str, Any]:
        """Return the quantiles."""
        return {"values": None if self.values is None else list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the quantiles."""
        values = state["values"]
        self.values = None if values is None else (float(values[0]), float(values[1]))


@described(
    "A = A_S / (std of the bundle's S · std of the prompt's R); S the sum of the k-th rewards of "
    "{bundle} prompts, A_S = ({weight}·v + u) / ({weight} + 1), "
    "u = ((S − a)⁺ − (S − b)⁺ + a − b) / ({high} − {low}), v = −(a − S)⁺ / {low}, "
    "a and b the tracked quantiles {low} and {high} of S",
    source="RiskPO, arXiv 2510.00911, and its code",
    group="over the batch",
    use="hard data, where the entropy falls; what is solved already teaches nothing",
    memory=QuantileTracker,
    differs=(
        "The authors' code divides by a bundle's standard deviation plus 1e-6, also where it is 0. Here one "
        "of at most 0.001 counts as 1, as theirs of a prompt does.",
        "The authors track 19 quantiles and take the two nearest. Here the levels themselves are tracked.",
        "The authors' code has a fourth division of credit, by the distance from the mean. Here there are "
        "three; no setting does the fourth.",
    ),
)
def riskpo(
    rewards: Tensor,
    memory: QuantileTracker,
    *,
    bundle: PositiveInt = 5,
    low: OpenShare = 0.2,
    high: OpenShare = 0.8,
    weight: NonNegativeFloat = 1.5,
    tail: Literal["worst", "best"] = "worst",
    credit: Literal["std", "uniform", "score"] = "std",
    flat: Literal["share", "zero"] = "share",
    eta: PositiveFloat = 0.1,
) -> Tensor:
    """RiskPO: the mean over the middle of the bundles' scores, and that of the worst, are raised.

    Bundles are prompts that stand beside each other in the batch; a rest of fewer than ``bundle`` has
    advantage 0, which the metric ``memory/unbundled`` counts. All advantages are at most 0, and
    0 above the upper quantile. An unscored completion leaves the k-th completions of its whole bundle without
    an advantage.

    Args:
        rewards: (P, G), NaN where unscored.
        memory: the quantiles before this iteration.
        bundle: prompts tied together.
        low: level of the lower quantile.
        high: level of the upper quantile.
        weight: of the worst tail, against the middle.
        tail: *best* rewards the upper tail in place of the lower one, the authors' negative example.
        credit: *std* divides by that of the prompt's rewards; *score* takes 0.5·A_S for R > 0 and 1.5·A_S
            else; *uniform* gives all the same.
        flat: whether prompts without a signal share their bundle's advantage, as published, or get 0.
        eta: step of the tracking, in units of reward.

    Returns:
        (P, G).

    """
    scores = bundle_scores(rewards, bundle)
    known = scores[~scores.isnan()]
    if not known.numel():
        return torch.zeros_like(rewards)
    shared = mixed_risk(scores, *memory.of(known), low=low, high=high, weight=weight, tail=tail)
    shared = (shared / _spread(scores)).repeat_interleave(bundle, 0)
    own = rewards[: len(shared)]
    if credit == "std":
        shared = shared / _spread(own)
    elif credit == "score":
        shared = shared * torch.where(own > 0, 0.5, 1.5)
    if flat == "zero":
        shared = torch.where(_std(own) > SMALLEST_STD, shared, torch.zeros_like(shared))
    rest = rewards.new_zeros(len(rewards) - len(shared), rewards.shape[1])
    return torch.cat([shared, rest]).nan_to_num(0.0)


def bundle_scores(rewards: Tensor, bundle: int) -> Tensor:
    """Return the sums of the k-th rewards of each whole bundle, (P // bundle, G); NaN where one is."""
    whole = len(rewards) // bundle
    return rewards[: whole * bundle].view(whole, bundle, rewards.shape[1]).sum(1)


def mixed_risk(
    scores: Tensor, a: float, b: float, *, low: float, high: float, weight: float, tail: str = "worst"
) -> Tensor:
    """Return A_S of scores S with quantiles a ≤ b at the levels low < high, in the shape of ``scores``."""
    middle = ((scores - a).clamp(min=0) - (scores - b).clamp(min=0) + a - b) / (high - low)
    if tail == "best":
        end = (scores - b).clamp(min=0) / (1 - high)
    else:
        end = -(a - scores).clamp(min=0) / low if weight else torch.zeros_like(scores)
    return (weight * end + middle) / (weight + 1)


def _std(values: Tensor) -> Tensor:
    """Return the unbiased standard deviation of each row's known values, (n, 1); 0 for fewer than two."""
    known = (~values.isnan()).sum(1, keepdim=True)
    squares = (values - values.nanmean(1, keepdim=True)).square().nansum(1, keepdim=True)
    return (squares / (known - 1).clamp(min=1)).sqrt()


def _spread(values: Tensor) -> Tensor:
    """Return ``_std`` with 1 in place of what counts as none, (n, 1)."""
    found = _std(values)
    return torch.where(found > SMALLEST_STD, found, torch.ones_like(found))
