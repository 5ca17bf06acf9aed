"""Single-stream Policy Optimization: a success rate of every row, kept over the run, as its baseline.

The tracker is a memory (``mm_cpgd/algorithms/inputs/memory.py``) that the advantage and the sampler's score
share. It is noted after an iteration's update, so that advantages use what was known before their rewards.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from mm_cpgd.algorithms.inputs.memory import RowMemory
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.part_info import OpenShare, Share, described
from mm_cpgd.errors import UserError


class ValueTracker(RowMemory):
    """A Beta distribution of each row's success rate, which forgets: a ← ρ·a + r, b ← ρ·b + 1 − r.

    Args:
        rho: share of the past that remains at each note of a row.
        low: smallest reward, counted as failure.
        high: largest reward, counted as success.

    Attributes:
        table: a and b of each row, 1/2 and 1/2 at first.
    """

    def __init__(self, rho: float = 0.875, low: float = 0.0, high: float = 1.0) -> None:
        self.rho, self.low, self.high = rho, low, high
        super().__init__(a=0.5, b=0.5)

    def values(self, rows: Tensor) -> Tensor:
        """Return a / (a + b) of these rows (P,), float64."""
        a, b = (self.table.get(name, rows) for name in ("a", "b"))
        return a / (a + b)

    def rates(self, rewards: Tensor) -> Tensor:
        """Return rewards scaled to [0, 1]. Raises ``UserError`` for one outside ``low`` to ``high``."""
        scored = rewards[~rewards.isnan()]
        if (scored < self.low).any() or (scored > self.high).any():
            raise UserError(
                f"algorithm.advantage: spo: rewards from {scored.min():g} to {scored.max():g} do not lie in "
                f"low = {self.low:g} to high = {self.high:g}; set these to the smallest and the largest "
                "reward that the rules can give."
            )
        return (rewards - self.low) / (self.high - self.low)

    def note(self, outcomes: Outcomes) -> None:
        """Note an iteration's outcomes in the order of the draws; of several completions their sum."""
        rates = self.rates(outcomes.rewards)
        for row, own in zip(outcomes.rows.tolist(), rates, strict=True):
            known = own[~own.isnan()]
            if known.numel():
                place = torch.tensor([row])
                right, tried = known.sum(), float(known.numel())
                self.table.set("a", place, self.rho * self.table.get("a", place) + right)
                self.table.set("b", place, self.rho * self.table.get("b", place) + tried - right)


@described(
    "A = d / (std_batch d + 1e-8) with d ← d − mean_batch d, d = r − v, r = (R − {low}) / ({high} − {low}), "
    "v = a / (a + b) of the prompt's row, before this reward; after the update a ← {rho}·a + r, "
    "b ← {rho}·b + 1 − r",
    source="SPO, arXiv 2509.13232, and its code",
    group="by training row",
    use="one completion for each prompt, rows that are seen several times",
    choice="normalise",
    variants={"batch": "centred and divided by the batch's std", "none": "A = d"},
    memory=ValueTracker,
    differs=(
        "The authors forget by how far the policy has moved since the row's last draw, measured on its last "
        "completion, with ρ from 0.875 to 0.96. Here ρ is constant, their ablation. No setting does this.",
        "The authors start each row from 8 completions of the initial policy. Here every row starts from "
        "a = b = 1/2. No setting does this.",
    ),
)
def spo(
    rewards: Tensor,
    rows: Tensor,
    memory: ValueTracker,
    *,
    normalise: Literal["batch", "none"] = "batch",
    rho: OpenShare = 0.875,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """SPO: reward minus the row's tracked value; needs no group, and all of a group have the same baseline.

    Args:
        rewards: (P, G), NaN where unscored; G may be 1.
        rows: (P,) indices of the training rows.
        memory: the tracker.
        normalise: over all completions of the batch, or not.
        rho: share of the past that remains when a row is noted.
        low: smallest reward that the rules can give.
        high: largest reward that the rules can give.

    Returns:
        (P, G).

    Raises:
        UserError: a reward outside [low, high].
    """
    gained = memory.rates(rewards) - memory.values(rows).to(rewards)[:, None]
    known = gained[~gained.isnan()]
    if normalise == "none" or not known.numel():
        return gained.nan_to_num(0.0)
    spread = known.std() if known.numel() > 1 else known.new_zeros(())
    # All equal: rounding errors of the mean must not look like a signal.
    centred = torch.zeros_like(gained) if known.min() == known.max() else gained - known.mean()
    return (centred / (spread + 1e-8)).nan_to_num(0.0)


@described(
    "score = √(v·(1 − v)) + {epsilon}, v = a / (a + b) of the row; {share} of each batch is drawn in "
    "proportion to it, without replacement, from all rows",
    source="SPO, arXiv 2509.13232, and its code",
    group="by training row",
    use="with the advantage spo",
    memory=ValueTracker,
    differs=("The authors draw from the next 14,000 rows. Here it is from all rows.",),
)
def tracker_variance(
    memory: ValueTracker, row_count: int, *, epsilon: NonNegativeFloat = 0.05, share: Share = 1.0
) -> Tensor:
    """SPO's curriculum: rows of which the tracker does not know whether they are solved.

    Args:
        memory: the tracker, shared with the advantage.
        row_count: number of training rows.
        epsilon: added to each weight.
        share: share of a batch that is drawn by score; read by the sampler.

    Returns:
        Scores (row_count,).
    """
    value = memory.values(torch.arange(row_count))
    return (value * (1 - value)).sqrt() + epsilon
