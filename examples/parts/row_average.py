"""A baseline with a memory of one's own: each row's average reward over the run."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.algorithms import described
from mm_cpgd.algorithms.inputs.memory import RowMemory
from mm_cpgd.algorithms.inputs.outcomes import Outcomes


class RowAverages(RowMemory):
    """An exponential average of each row's mean reward.

    Args:
        keep: share of the average that remains at each note.
    """

    def __init__(self, keep: float = 0.9) -> None:
        self.keep = keep
        super().__init__(average=0.0)

    def note(self, outcomes: Outcomes) -> None:
        """Mix the rewards of this iteration in; a row that is drawn twice is noted twice."""
        for row, mean in zip(outcomes.rows.split(1), outcomes.rewards.nanmean(1), strict=True):
            if not mean.isnan():
                before = self.table.get("average", row)
                self.table.set("average", row, self.keep * before + (1 - self.keep) * mean)


@described("A = R − the row's average over the run", memory=RowAverages)
def row_average(rewards: Tensor, rows: Tensor, memory: RowAverages, *, keep: float = 0.9) -> Tensor:
    """Reward minus what the row has earned so far; (P, G) to (P, G).

    Args:
        rewards: (P, G), NaN where unscored.
        rows: (P,) indices of the training rows.
        memory: their averages before this iteration.
        keep: share of the average that remains at each note.
    """
    baseline = memory.table.get("average", rows).to(rewards)
    return torch.nan_to_num(rewards - baseline[:, None], 0.0)
