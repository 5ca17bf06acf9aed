"""Rewards scaled by how much the rules' mean scores have widened their Pareto front.

A part of ``reward_weights`` takes ``weights`` (R,) of the rules and what else it needs of the outcomes, and
returns the weights (R,) that the iteration's rewards are mixed with, or these and a factor of its advantages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import NonNegativeFloat
from torch import Tensor

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.part_info import BelowOne, described

Point = tuple[float, ...]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Return the volume that the points, R numbers each, dominate above the reference; all are to be raised.

    By slices along the last axis, exact for any R; its time grows with len(points) to the power of R − 1.
    """
    above = [tuple(p - r for p, r in zip(point, reference, strict=True)) for point in points]
    return _volume([point for point in above if min(point) > 0])


def _volume(points: Sequence[Point]) -> float:
    if not points:
        return 0.0
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    ordered = sorted(points, key=lambda point: -point[-1])
    lower = [*(point[-1] for point in ordered[1:]), 0.0]
    return sum(
        (point[-1] - below) * _volume([one[:-1] for one in ordered[: place + 1]])
        for place, (point, below) in enumerate(zip(ordered, lower, strict=True))
        if point[-1] > below
    )


def not_dominated(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one reaches in every number, each once."""
    distinct = list(dict.fromkeys(points))
    return [
        one
        for one in distinct
        if not any(
            other != one and all(b >= a for a, b in zip(one, other, strict=True)) for other in distinct
        )
    ]


class Front:
    """Pareto front of the rules' mean scores over the run, and what the newest point has added to it.

    Args:
        smoothing: share of the past in the exponential mean of the scores.
        margin: by which the reference lies below the first iteration's scores.

    Attributes:
        reference: the point above which volumes count; None before the first iteration.
        mean: the smoothed scores.
        points: the front, without dominated points.
        scale: 0.5 + 1.5·tanh(volume added by the newest point); 1 before the second iteration.
    """

    def __init__(self, smoothing: float = 0.5, margin: float = 0.1) -> None:
        self.smoothing, self.margin = smoothing, margin
        self.reference: Point | None = None
        self.mean: Point = ()
        self.points: list[Point] = []
        self.scale = 1.0

    def note(self, outcomes: Outcomes) -> None:
        """Add an iteration's mean scores; a rule of negative weight counts with the other sign."""
        counted = outcomes.weights != 0
        scored = ~outcomes.rewards.isnan()
        scores = (
            outcomes.components[scored][:, counted].double().nanmean(0) * outcomes.weights[counted].sign()
        )
        if not scores.numel() or scores.isnan().any():
            return
        new = tuple(scores.tolist())
        if self.reference is None:
            self.reference, self.mean = tuple(value - self.margin for value in new), new
            return
        kept = self.smoothing
        self.mean = tuple(kept * old + (1 - kept) * value for old, value in zip(self.mean, new, strict=True))
        self.add(self.mean)

    def add(self, point: Point) -> None:
        """Set the scale by what a point adds to the volume, and keep the point if that is positive."""
        assert self.reference is not None
        wider = [*self.points, point]
        gained = max(0.0, hypervolume(wider, self.reference) - hypervolume(self.points, self.reference))
        self.scale = 0.5 + 1.5 * math.tanh(gained)
        if gained > 0:
            self.points = not_dominated(wider)

    def metrics(self) -> dict[str, float]:
        """Return the scale of the next iteration, the volume so far and the number of points."""
        volume = hypervolume(self.points, self.reference) if self.reference else 0.0
        return {"reward_scale": self.scale, "hypervolume": volume, "front": float(len(self.points))}

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Nothing is learned from an optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """Return points and scale."""
        points = [list(point) for point in self.points]
        reference = None if self.reference is None else list(self.reference)
        return {"reference": reference, "mean": list(self.mean), "points": points, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore points and scale."""
        reference = state["reference"]
        self.reference = None if reference is None else tuple(map(float, reference))
        self.mean = tuple(map(float, state["mean"]))
        self.points = [tuple(map(float, point)) for point in state["points"]]
        self.scale = float(state["scale"])


@described(
    "A ← s·A, s = 0.5 + 1.5·tanh(volume that the last iteration's mean scores added to their front), 1 in "
    "the first two iterations; apply: rewards: the rules' weights are multiplied by s instead",
    source="dynamic reward weighting, arXiv 2509.11452, guided by hypervolume, and its code",
    use="several rules, of which progress in any is worth a larger step",
    memory=Front,
    differs=(
        "The authors scale the rewards, which a normalised advantage undoes. Here the advantages are scaled. "
        "For theirs set apply to rewards, with an advantage that keeps the rewards' scale.",
        "The authors measure scores on validation rows after each step, against those before training. Here "
        "they are the training batch's means, smoothed, and the reference lies below those of the first "
        "iteration by margin: without it nothing counts as progress while one rule is at its best. For no "
        "margin set margin to 0.",
    ),
)
def hypervolume_scale(
    weights: Tensor,
    memory: Front,
    *,
    apply: Literal["advantages", "rewards"] = "advantages",
    smoothing: BelowOne = 0.5,
    margin: NonNegativeFloat = 0.1,
) -> Tensor | tuple[Tensor, float]:
    """Dynamic reward weighting by hypervolume: steps grow where the front of the scores has widened.

    Args:
        weights: (R,) of the rules.
        memory: the front up to the last iteration.
        apply: what is scaled.
        smoothing: share of the past in the mean scores, below 1.
        margin: by which the reference lies below the first iteration's scores.

    Returns:
        Weights (R,), or weights (R,) and the factor of the advantages.
    """
    return memory.scale * weights if apply == "rewards" else (weights, memory.scale)
