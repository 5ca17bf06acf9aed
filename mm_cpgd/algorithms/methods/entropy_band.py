"""EPO's entropy smoothing: the entropy is held within a band around its own history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import OpenShare, described


class EntropyHistory:
    """Mean entropy of the optimizer steps so far.

    Args:
        memory: None: the plain mean of all steps; else the exponential mean m·old + (1 − m)·new.
    """

    def __init__(self, memory: float | None) -> None:
        self.memory = memory
        self.mean: float | None = None
        self.steps = 0

    @property
    def value(self) -> float | None:
        """The mean, in nats per token; None before the first step."""
        return self.mean

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Count a step in; one whose entropy is NaN or missing is ignored."""
        entropy = metrics.get("entropy", float("nan"))
        if entropy != entropy:
            return
        self.steps += 1
        share = 1 / self.steps if self.memory is None or self.mean is None else 1 - self.memory
        self.mean = entropy if self.mean is None else self.mean + share * (entropy - self.mean)

    def state_dict(self) -> dict[str, Any]:
        """Return mean and number of steps; NaN for no mean."""
        return {"mean": float("nan") if self.mean is None else self.mean, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""
        mean = float(state["mean"])
        self.mean, self.steps = None if mean != mean else mean, int(state["steps"])


@described(
    "Ω = {coefficient}·w·d, h the mean entropy of all steps so far, w falling over the run; before the first "
    "step 0",
    source="EPO, arXiv 2509.22576, and the authors' code; hinge: this project's",
    group="entropy",
    use="with entropy_bonus, where the entropy swings or runs away",
    state=EntropyHistory,
    choice="shape",
    variants={
        "hinge": "d = max(0, {low}·h − H) + max(0, H − {high}·h)",
        "indicator": "d = {penalty} where H is outside of {low}·h to {high}·h, else 0",
    },
    differs=(
        "The authors' term is an indicator times a constant, which has no gradient: in their code it changes "
        "the reported loss and no parameter. Here the default is a hinge, which acts. For theirs set shape "
        "to indicator.",
        "The authors keep a history for each turn of an agent and apply the term in the second half of an "
        "episode. Here there is one history, of all tokens.",
    ),
)
def entropy_band(
    entropy: Tensor,
    state: float | None,
    progress: float,
    *,
    coefficient: PositiveFloat = 0.01,
    low: NonNegativeFloat = 0.8,
    high: PositiveFloat = 1.2,
    shape: Literal["hinge", "indicator"] = "hinge",
    penalty: PositiveFloat = 0.1,
    phases: Literal["published", "constant"] = "published",
    floor: PositiveFloat = 0.01,
    memory: OpenShare | None = None,
) -> Tensor:
    """Penalise entropies outside of a band around their historical mean, token by token.

    The hinge raises entropies below the band and lowers those above it, with slope 1 per nat.

    Args:
        entropy: (n, T), nats, with gradient.
        state: historical mean, see ``EntropyHistory``; None before the first step.
        progress: 0 in the first iteration of the run, 1 in the last.
        coefficient: weight per nat; to act beside an entropy bonus it must exceed the bonus's.
        low: lower end of the band as a share of the mean; the authors' 0 switches it off.
        high: upper end; 2 in the authors' runs.
        shape: *hinge*, or the published *indicator*, a value without a gradient.
        penalty: value of the indicator; 0.05 and 0.1 in the authors' runs.
        phases: w as published, see ``phase_weight``, or *constant* 1.
        floor: least upper end of the band, in nats, so that a collapsed policy may recover.
        memory: None: mean of all steps; else the weight of the past in an exponential mean.

    Returns:
        (n, T), ≥ 0.
    """
    if state is None:
        return torch.zeros_like(entropy)
    weight = coefficient * (phase_weight(progress) if phases == "published" else 1.0)
    bottom, top = low * state, max(high * state, floor)
    if shape == "indicator":
        outside = (entropy < bottom) | (entropy > top)
        return weight * penalty * outside.to(entropy.dtype)
    return weight * ((bottom - entropy).clamp(min=0) + (entropy - top).clamp(min=0))


def phase_weight(progress: float) -> float:
    """Return EPO's weight at u of the run: 1 − 0.2·(1 − e^(−4u)) up to its half, then 0.8·e^(−6(u − 1/2))."""
    half = 0.5
    if progress <= half:
        return 1 - 0.2 * (1 - math.exp(-2 * progress / half))
    return 0.8 * math.exp(-3 * (progress - half) / (1 - half))
