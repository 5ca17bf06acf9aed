"""Completions sampled at another temperature, of which right ones are imitated to steer the entropy.

A part takes any of ``state``, ``completions`` (P·G, those of an iteration) and the clock. It returns the
temperature and the largest number of completions to imitate, and is called before they are sampled, on all
processes alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import UpToOne, described

# Differences from a group's mean that are rounding.
SMALLEST_GAP = 1e-9


class LastEntropy:
    """Mean entropy of the policy at the last optimizer step, 0 before the first."""

    def __init__(self) -> None:
        self.value = 0.0

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Take a step's entropy; one whose entropy is NaN or missing is ignored."""
        entropy = metrics.get("entropy", float("nan"))
        if entropy == entropy:
            self.value = float(entropy)

    def state_dict(self) -> dict[str, Any]:
        """Return the entropy."""
        return {"entropy": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the entropy."""
        self.value = float(state["entropy"])


@described(
    "T = {hot} if the last step's entropy ≤ {target}, else {cool}; the first n right completions above their "
    "group's mean are imitated, n up to {most} of P·G, half of that if T = {cool}",
    source="AEPO, arXiv 2510.08141, and its code",
    use="to hold the entropy at a level without an entropy term",
    state=LastEntropy,
    differs=(
        "The authors' completions take the places of as many of the batch's. Here they are learned from "
        "beside them, with the same share in the loss, n / (P·G). No setting does this.",
        "The authors take completions with A > 0.05. Here those that are right (accuracy 1) and whose reward "
        "is above their group's mean; of rewards of 0 and 1 these are the same.",
        "The authors fix the number at 60. Here it is a share of P·G, 60 of 4,096, rounded up.",
    ),
)
def aepo(
    state: float,
    completions: int,
    *,
    target: NonNegativeFloat = 0.5,
    hot: PositiveFloat = 1.2,
    cool: PositiveFloat = 0.8,
    most: UpToOne = 0.0146484375,
) -> tuple[float, int]:
    """Sample hotter to raise the entropy, cooler to lower it.

    Imitation of all samples of π^(1/T) moves the logits by π^(1/T) − π: towards even probabilities for T > 1,
    away from them for T < 1, and not at all for T = 1.

    Args:
        state: mean entropy at the last step, nats per token.
        completions: P·G.
        target: entropy to hold, nats per token.
        hot: temperature at and below it, relative to ``rollout.temperature``.
        cool: temperature above it, likewise.
        most: largest share of P·G that is imitated.

    Returns:
        The temperature, and the largest number of completions to imitate.
    """
    # Less a rounding error, so that 60 / 4,096 of 4,096 are 60.
    count = math.ceil(most * completions - 1e-9)
    return (hot, count) if state <= target else (cool, max(1, count // 2))


def imitated(rewards: Tensor, accuracy: Tensor, most: int) -> Tensor:
    """Return the first right completions above their group's mean, in the order of the prompts.

    Groups whose rewards are all equal have none.

    Args:
        rewards: (P, G), NaN where unscored.
        accuracy: (P, G) likewise, in [0, 1].
        most: largest number.

    Returns:
        (P, G) bool.
    """
    right = (accuracy >= 1) & (rewards > rewards.nanmean(1, keepdim=True) + SMALLEST_GAP)
    return right & (right.flatten().cumsum(0) <= most).reshape(right.shape)
