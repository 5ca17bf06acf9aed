"""Replay: which completions of earlier iterations are learned from again, and with which advantages.

A part takes any of ``rewards``, ``advantages``, ``ages``, ``lengths``, ``rows``, all (E,) for the E entries
of its ``memory``, a ``ReplayBuffer`` or a subclass of it, and ``seed`` and the clock. It returns advantages
(E,), NaN for entries that are not replayed in this iteration, and is called after the rollouts, on all
processes alike. ``ages`` is the number of iterations since an entry was sampled, at least 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.by_row.entries import Entries
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.part_info import UpToOne, described


class ReplayBuffer:
    """Completions of the last iterations that were better than expected, and a history of group baselines.

    It is the same on all processes. It takes at most ``capacity`` entries and drops the oldest first.

    Args:
        capacity: largest number of entries.
        tolerate: largest age in iterations at which an entry can be replayed.
        least: completions with A above this are taken up.
        history: number of groups whose mean and standard deviation are kept.
        emptied: whether a replay drops all entries that were there, as SPEAR's does.
    """

    def __init__(
        self,
        capacity: int = 8192,
        tolerate: int = 10,
        least: float = 0.0,
        history: int = 10_240,
        *,
        emptied: bool = True,
    ) -> None:
        self.capacity = capacity
        self.tolerate = tolerate
        self.least = least
        self.history = history
        self.emptied = emptied
        self.entries = Entries.none()
        self.baselines = torch.zeros(0, 2, dtype=torch.float64)

    def admits(self, advantages: Tensor, usable: Tensor) -> Tensor:
        """Return which completions (P, G) bool are taken up, of those that are ``usable`` in the update."""
        return usable & (advantages > self.least)

    def note(self, outcomes: Outcomes) -> None:
        """Take up an iteration's entries, add its groups to the history, and drop what is too old."""
        means = outcomes.rewards.nanmean(1)
        deviations = (outcomes.rewards - means[:, None]).square().nanmean(1).sqrt()
        known = ~means.isnan()
        groups = torch.stack([means, deviations], 1)[known].double()
        self.baselines = torch.cat([self.baselines, groups])[-self.history :].clone()
        kept = Entries.none() if outcomes.replayed and self.emptied else self.entries
        new = Entries.none() if outcomes.entries is None else Entries(**outcomes.entries)
        found = Entries.joined([kept, new])
        fresh = (outcomes.iteration + 1 - found.iterations <= self.tolerate).nonzero().squeeze(1)
        self.entries = found.at(fresh[-self.capacity :])

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Nothing is learned from an optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """Return entries and history."""
        return {"entries": self.entries.state(), "baselines": self.baselines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore entries and history."""
        self.entries = Entries(**state["entries"])
        self.baselines = state["baselines"].clone()


@described(
    "A′ = R − median of the last {history} groups' means, where A′ > 0, of up to {size} entries, the largest "
    "power of two, drawn at random; once more than {fill}·{size} entries have R above that median, which "
    "empties the buffer; it takes up completions with A > {least}, and drops those of more than {tolerate} "
    "iterations ago",
    source="SPEAR, arXiv 2509.22601, and its code",
    use="rare successes, which one step does not teach",
    memory=ReplayBuffer,
    differs=(
        "The authors' buffer is not bounded until it is emptied. Here it holds the newest entries alone, as "
        "many as the option capacity says.",
        "The authors store the log-probabilities that the trainer computes. Here those are stored that the "
        "engine reports, of the same distribution, so that no forward pass is needed.",
    ),
)
def spear(
    rewards: Tensor,
    advantages: Tensor,
    memory: ReplayBuffer,
    seed: int,
    *,
    size: PositiveInt = 2048,
    fill: NonNegativeFloat = 1.5,
    decay: UpToOne | None = None,
    scale: bool = False,
    capacity: PositiveInt = 8192,
    tolerate: PositiveInt = 10,
    least: NonNegativeFloat = 0.0,
    history: PositiveInt = 10_240,
) -> Tensor:
    """Replay successes that are still above the present level.

    The level is that of all prompts, as published, not the entry's own prompt's.

    Args:
        rewards: (E,).
        advantages: (E,), of the time of sampling.
        memory: the entries and the history of baselines.
        seed: of the draw.
        size: largest number of entries that are replayed at once.
        fill: the buffer is full at more than ``fill · size`` entries above the level.
        decay: A′ = decay · A in place of the distance from the level; None: that distance.
        scale: divide the distance by the median of the groups' standard deviations, for advantages that are
            divided by theirs.
        capacity: see ``ReplayBuffer``; at least as many as make it full.
        tolerate: likewise.
        least: likewise.
        history: likewise.

    Returns:
        (E,), NaN where an entry is not replayed.
    """
    nothing = torch.full_like(rewards, torch.nan)
    if not len(memory.baselines):
        return nothing
    level, spread = memory.baselines.quantile(0.5, 0)
    above = rewards > level
    if int(above.sum()) <= fill * size:
        return nothing
    found = rewards - level
    if decay is not None:
        found = decay * advantages
    elif scale:
        found = found / spread if spread > 0 else nothing
    worth = (above & (found > 0)).nonzero().squeeze(1)
    shuffled = torch.randperm(len(worth), generator=torch.Generator().manual_seed(seed))
    chosen = worth[shuffled[: largest_power_of_two(min(len(worth), size))]]
    nothing[chosen] = found[chosen].to(nothing)
    return nothing


def largest_power_of_two(count: int) -> int:
    """Return the largest power of two that is at most ``count``; 0 for 0."""
    return 1 << (count.bit_length() - 1) if count else 0


def smallest_capacity(size: int, fill: float) -> int:
    """Return the number of entries at which SPEAR's buffer is full."""
    return int(fill * size) + 1
