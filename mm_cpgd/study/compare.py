"""Comparison of two studies, for instance of two machines: collapse rates and ranking of the objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.study.run import read_study
from mm_cpgd.study.summary import Finished, ShareInterval, collapses, finished, mean_over_seeds, rank


@dataclass(frozen=True)
class Compared:
    """Two studies, over the objectives and levels of stress that both hold.

    Attributes:
        levels: that both hold.
        methods: of each objective, what ``rank`` needs, in the first and in the second study.
        rankings: names, fewest collapses first.
        tau: Kendall's τ of the two orders: 1 the same, −1 the reverse; None for fewer than two objectives.
        turned: pairs of objectives in one order in the first study, in the other in the second.
    """

    levels: int
    methods: dict[str, tuple[dict[str, Any], dict[str, Any]]]
    rankings: tuple[list[str], list[str]]
    tau: float | None
    turned: list[tuple[str, str]]

    def agrees(self, name: str) -> bool:
        """Whether each study's collapse rate of an objective lies in the other's interval."""
        one, other = (side["collapse"] for side in self.methods[name])
        pairs = ((one["rate"], other["interval"]), (other["rate"], one["interval"]))
        return all(low <= rate <= high for rate, (low, high) in pairs)


def compare_studies(first: Path, second: Path, interval: ShareInterval) -> Compared:
    """Compare two studies.

    Args:
        first: folder of a study.
        second: of another.
        interval: of a share.

    Raises:
        UserError: there is no study, or they have no objective at the same level of stress.
    """
    runs = [finished(read_study(folder)[1]) for folder in (first, second)]
    cells = set.intersection(*({(run.trial.method, run.trial.stress) for run in side} for side in runs))
    if not cells:
        raise UserError(f"{first} and {second} share no objective at the same learning rate and updates")
    names = [name for name in dict.fromkeys(run.trial.method for run in runs[0]) if name in dict(cells)]
    sides = [{name: _numbers(side, name, cells, interval) for name in names} for side in runs]
    rankings = rank(sides[0]), rank(sides[1])
    turned = [
        (before, after)
        for before, after in combinations(rankings[0], 2)
        if rankings[1].index(before) > rankings[1].index(after)
    ]
    pairs = len(names) * (len(names) - 1) // 2
    return Compared(
        levels=len({stress for _, stress in cells}),
        methods={name: (sides[0][name], sides[1][name]) for name in names},
        rankings=rankings,
        tau=1 - 2 * len(turned) / pairs if pairs else None,
        turned=turned,
    )


def _numbers(
    runs: Sequence[Finished], name: str, cells: set[tuple[str, Any]], interval: ShareInterval
) -> dict[str, Any]:
    own = [run for run in runs if run.trial.method == name and (name, run.trial.stress) in cells]
    final = mean_over_seeds(own, "final", 0.0, 1.0)
    return {"collapse": collapses(own, interval), "final": {"mean": final.mean}}
