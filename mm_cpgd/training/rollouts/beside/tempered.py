"""Completions sampled at another temperature, of which right ones are rows beside an iteration's rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mm_cpgd.algorithms.methods.tempered import imitated
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import TemperedConfig
from mm_cpgd.rollout import Completion, Group
from mm_cpgd.training.rollout_stats import RolloutStats
from mm_cpgd.training.rollouts.beside.elsewhere import OtherCompletions, Source, surrogate_alone


@dataclass(frozen=True)
class Tempered:
    """How many prompts get further completions, and what imitation of one counts.

    Attributes:
        prompts: S, the first prompts of the iteration's first rollout batch.
        weight: factor on the advantage n / (P·G) of n imitated completions; at 0 none is sampled.
        completions: P·G of a rollout batch.
    """

    prompts: int
    weight: float
    completions: int

    @classmethod
    def of(cls, rollout: RolloutConfig, chosen: TemperedConfig) -> Tempered:
        """Return the settings of a config."""
        # Less a rounding error, so that 0.1 of 30 are 3.
        prompts = math.ceil(chosen.share * rollout.prompts - 1e-9)
        return cls(prompts, chosen.weight, rollout.prompts * rollout.completions)

    def temperature(self, objective: Objective, iteration: int) -> tuple[float, int]:
        """Return temperature and number of the completions that the objective's part asks for."""
        assert objective.tempered is not None
        known = {"completions": self.completions, **objective.clock(iteration)}
        found, most = objective.call(objective.tempered, known)
        return float(found), int(most)


@dataclass(frozen=True)
class Further:
    """An iteration's completions at another temperature.

    Attributes:
        tempered: for how many prompts, and how much they count.
        groups: of each of the S prompts that belong to this process its completions.
        stats: (S, G) of all processes.
        temperature: relative to ``rollout.temperature``.
        most: largest number that is imitated.
    """

    tempered: Tempered
    groups: list[Group]
    stats: RolloutStats
    temperature: float
    most: int

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics over all processes."""
        stats = self.stats
        return {
            "tempered/temperature": self.temperature,
            "tempered/imitated": float(imitated(stats.rewards, stats.accuracy, self.most).sum()),
            "tempered/accuracy": float(stats.accuracy.nanmean()),
            "tempered/tokens": float(stats.lengths.nansum()),
        }

    def columns(self, usable: Tensor, mine: Tensor) -> list[OtherCompletions]:
        """Return the imitated completions as columns beside the iteration's; none if none is right.

        They are of prompts of which sampled completions are learned from too, so that they add no step.

        Args:
            usable: (P, G) bool, sampled completions that are learned from, of all processes.
            mine: (P,) bool, the prompts of this process.
        """
        rewards, accuracy = self.stats.rewards, self.stats.accuracy
        learned = usable[: len(rewards)].any(1, keepdim=True)
        chosen = imitated(rewards.where(learned, torch.nan), accuracy, self.most)
        count = int(chosen.sum())
        if not count:
            return []
        after = (0, 0, 0, len(usable) - len(chosen))
        credit = self.tempered.weight * count / self.tempered.completions
        rows: list[list[Completion | None]] = [[*group] for group in self.groups]
        return [
            OtherCompletions(
                usable=pad(chosen, after),
                lengths=pad(self.stats.lengths.nan_to_num(0.0), after),
                advantages=torch.full((len(usable), chosen.shape[1]), credit, dtype=torch.float64),
                groups=rows + [[] for _ in range(int(mine.sum()) - len(rows))],
            )
        ]


def tempered_source(objective: Objective) -> Source:
    """Return the source of imitated rows: the run's surrogate and aggregation, from the old policy on."""
    return Source("tempered", surrogate_alone(objective), from_old=True)
