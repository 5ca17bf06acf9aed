"""Comparison of two studies, for instance of two machines: collapse rates and ranking of the objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.study.run import read_study
from mm_cpgd.study.summary import TrialOutcome, collapses, mean_over_seeds, rank, trial_outcomes


@dataclass(frozen=True)
class Comparison:
    """Two studies, over the objectives and levels of stress that both hold.

    Attributes:
        levels: number of levels of stress in both.
        methods: for each objective, what ``rank`` needs, in the first and in the second study.
        rankings: names of the objectives in each study, fewest collapses first.
        tau: Kendall's τ of the two orders: 1 the same, −1 the reverse; None for fewer than two objectives.
        swapped: pairs of objectives that the second study ranks in the other order than the first.
    """

    levels: int
    methods: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    rankings: tuple[list[str], list[str]]
    tau: float | None
    swapped: list[tuple[str, str]]

    def agrees(self, name: str) -> bool:
        """Return whether each study's collapse rate of an objective lies in the other's interval."""
        one, other = (side["collapse"] for side in self.methods[name])
        pairs = ((one["rate"], other["interval"]), (other["rate"], one["interval"]))
        return all(low <= rate <= high for rate, (low, high) in pairs)


def compare_studies(first: Path, second: Path) -> Comparison:
    """Compare two studies.

    Args:
        first: folder of one study.
        second: folder of the other.

    Raises:
        UserError: a folder holds no study, or they have no objective at the same level of stress in common.
    """
    runs = [trial_outcomes(read_study(folder)[1]) for folder in (first, second)]
    cells = set.intersection(*({(run.trial.method, run.trial.stress) for run in side} for side in runs))
    if not cells:
        raise UserError(f"{first} and {second} share no objective at the same learning rate and updates")
    names = [name for name in dict.fromkeys(run.trial.method for run in runs[0]) if name in dict(cells)]
    sides = [{name: _numbers(side, name, cells) for name in names} for side in runs]
    rankings = rank(sides[0]), rank(sides[1])
    swapped = [
        (before, after)
        for before, after in combinations(rankings[0], 2)
        if rankings[1].index(before) > rankings[1].index(after)
    ]
    pairs = len(names) * (len(names) - 1) // 2
    return Comparison(
        levels=len({stress for _, stress in cells}),
        methods={name: (sides[0][name], sides[1][name]) for name in names},
        rankings=rankings,
        tau=1 - 2 * len(swapped) / pairs if pairs else None,
        swapped=swapped,
    )


def _numbers(runs: Sequence[TrialOutcome], name: str, cells: set[tuple[str, Any]]) -> dict[str, Any]:
    own = [run for run in runs if run.trial.method == name and (name, run.trial.stress) in cells]
    final = mean_over_seeds(own, "final", 0.0, 1.0)
    return {"collapse": collapses(own), "final": {"mean": final.mean}}
