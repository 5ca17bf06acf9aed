"""Summary of a study: all runs in one dictionary, by objective and by stress, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from mm_cpgd.report.intervals import wilson_interval
from mm_cpgd.study.grid import Grid, Stress, Trial
from mm_cpgd.study.results import Outcome, StudyRun, outcome_of

SHARES = ("final", "best", "area", "well_formed", "clip_fraction")
OTHERS = ("drift", "entropy", "grad_norm", "sampled_tokens")
# Each difference isolates one part of CPGD; all four objectives have the same advantage.
PARTS = (
    ("clip, alone", "cpg", "pg_std"),
    ("clip, beside the drift", "cpgd", "pgd"),
    ("drift, alone", "pgd", "pg_std"),
    ("drift, beside the clip", "cpgd", "cpg"),
)
# Objectives that are the same computation with one update per rollout batch.
EQUIVALENT = (("pg_std", "cpg", "pgd", "cpgd"), ("grpo", "grpo_dual_clip"))


@dataclass(frozen=True)
class TrialOutcome:
    """A run with its outcome."""

    trial: Trial
    outcome: Outcome


def trial_outcomes(runs: Iterable[StudyRun]) -> list[TrialOutcome]:
    """Return the outcome of every run."""
    return [
        TrialOutcome(run.trial, outcome_of(run.rows, run.diverged is not None, run.iterations))
        for run in runs
    ]


def summarise(grid: Grid, results: Sequence[StudyRun]) -> dict[str, Any]:
    """Return the study's summary.

    Keys: ``grid``; ``runs`` (``planned``, ``done``, ``collapsed``, total ``seconds`` and ``cpu_seconds``,
    ``codes``); ``methods`` (name to the numbers of ``_group``, over all levels, ``by_stress`` and
    ``at_own_rate``); ``stresses`` (collapses of all objectives at each level); ``parts`` (effect of clip and
    drift); ``same`` (see ``same_computations``); ``ranking`` (names, see ``rank``); ``beside_cpgd``
    (CPGD's final accuracy minus each other's); ``ahead_of_cpgd`` (levels where another was better).
    """
    runs = trial_outcomes(results)
    methods = {name: _method(grid, name, runs) for name in grid.methods}
    return {
        "grid": grid.as_dict(),
        "runs": {
            "planned": len(grid.trials()),
            "done": len(runs),
            "collapsed": sum(bool(run.outcome.collapse) for run in runs),
            "seconds": round(sum(one.seconds for one in results), 1),
            "cpu_seconds": round(sum(one.cpu_seconds for one in results), 1),
            "codes": sorted({one.code for one in results}),
        },
        "methods": methods,
        "stresses": {
            stress.label: collapses([run for run in runs if run.trial.stress == stress])
            for stress in grid.stresses
        },
        "parts": [
            {"part": part, "with": more, "without": less, **asdict(difference(runs, more, less))}
            for part, more, less in PARTS
            if {more, less} <= set(grid.methods)
        ],
        "same": same_computations(runs),
        "ranking": rank(methods),
        "beside_cpgd": [
            {"method": name, **asdict(difference(runs, "cpgd", name))}
            for name in grid.methods
            if "cpgd" in grid.methods and name != "cpgd"
        ],
        "ahead_of_cpgd": _ahead(grid, runs, "cpgd"),
    }


def _method(grid: Grid, name: str, runs: Sequence[TrialOutcome]) -> dict[str, Any]:
    own = [run for run in runs if run.trial.method == name]
    return {
        **_group(own),
        "by_stress": {
            stress.label: _group([run for run in own if run.trial.stress == stress])
            for stress in grid.stresses
        },
        "at_own_rate": at_own_rate(own, grid.updates),
    }


def _group(runs: Sequence[TrialOutcome]) -> dict[str, Any]:
    """Summarise runs: collapses, ends below the start, means of ``Outcome``, extremes of the ratio."""
    means = {key: asdict(mean_over_seeds(runs, key, 0.0, 1.0)) for key in SHARES}
    means |= {key: asdict(mean_over_seeds(runs, key)) for key in OTHERS}
    ratios = {
        "ratio_max": max(_finite(run.outcome.ratio_max for run in runs), default=None),
        "ratio_min": min(_finite(run.outcome.ratio_min for run in runs), default=None),
    }
    worse = sum(run.outcome.final < run.outcome.start for run in runs)
    below = share_of(worse, len(runs))
    return {"collapse": collapses(runs), "below_start": below, **means, **ratios}


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def mean_over_seeds(
    runs: Iterable[TrialOutcome], key: str, low: float = -math.inf, high: float = math.inf
) -> Mean:
    """Return the mean of a number of ``Outcome``; a seed's runs share prompts and are averaged first.

    So its interval is the uncertainty over seeds; the spread between levels does not widen it.
    """
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        value = getattr(run.outcome, key)
        if math.isfinite(value):
            by_seed.setdefault(run.trial.seed, []).append(value)
    return mean_of([fmean(own) for own in by_seed.values()], low, high)


def collapses(runs: Sequence[TrialOutcome]) -> dict[str, Any]:
    """Return ``count`` of ``total`` runs that collapsed, their ``rate``, its ``interval``, ``reasons``."""
    collapsed = [run.outcome.collapse for run in runs if run.outcome.collapse]
    reasons = [reason for collapse in collapsed for reason in collapse.reasons]
    counted = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    return {**share_of(len(collapsed), len(runs)), "reasons": counted}


def share_of(count: int, total: int) -> dict[str, Any]:
    """Return ``count``, ``total``, ``rate`` (None if ``total`` is 0) and its 95 % ``interval``."""
    rate = count / total if total else None
    return {"count": count, "total": total, "rate": rate, "interval": list(wilson_interval(count, total))}


def at_own_rate(runs: Sequence[TrialOutcome], updates: Sequence[int]) -> dict[str, Any]:
    """Return the final accuracy at an objective's best learning rate, by updates per rollout batch.

    The rate for a seed is the one with the highest mean final accuracy over the other seeds, so that no seed
    is reported at a rate that it helped to choose.

    Args:
        runs: runs of one objective.
        updates: the grid's numbers of updates.
    """
    return {
        str(count): _own_rate([run for run in runs if run.trial.stress.updates == count]) for count in updates
    }


def _own_rate(runs: Sequence[TrialOutcome]) -> dict[str, Any]:
    values = {run.trial: run.outcome.final for run in runs}
    chosen = chosen_rates(values)
    finals = [value for trial, value in values.items() if chosen.get(trial.seed) == trial.stress.rate]
    return {**asdict(mean_of(finals, 0.0, 1.0)), "rates": sorted(set(chosen.values()))}


def chosen_rates(values: Mapping[Trial, float]) -> dict[int, float]:
    """Return for each seed the learning rate with the highest mean value over the other seeds.

    Of equally good rates it is the lowest; a seed without others is left out.

    Args:
        values: value of each run of one objective, all at the same number of updates.
    """
    chosen: dict[int, float] = {}
    for seed in sorted({trial.seed for trial in values}):
        by_rate: dict[float, list[float]] = {}
        for trial, value in values.items():
            if trial.seed != seed:
                by_rate.setdefault(trial.stress.rate, []).append(value)
        if by_rate:
            chosen[seed] = max(sorted(by_rate), key=lambda rate: fmean(by_rate[rate]))
    return chosen


def difference(runs: Sequence[TrialOutcome], more: str, less: str, key: str = "final") -> Mean:
    """Return the mean difference ``more`` − ``less`` in a number of ``Outcome``, with an interval over seeds.

    Pairs are runs of the same level and seed; a seed's pairs share prompts and are averaged first.
    """
    values = {run.trial: getattr(run.outcome, key) for run in runs}
    by_seed: dict[int, list[float]] = {}
    for trial, value in values.items():
        other = Trial(less, trial.stress, trial.seed)
        if trial.method == more and other in values:
            by_seed.setdefault(trial.seed, []).append(value - values[other])
    return mean_of([fmean(own) for own in by_seed.values()], -1.0, 1.0)


def same_computations(runs: Sequence[TrialOutcome]) -> dict[str, int]:
    """Compare runs that must agree, see ``EQUIVALENT``: number ``compared``, number that ``differ``."""
    outcomes = {run.trial: run.outcome for run in runs if run.trial.stress.updates == 1}
    pairs = [
        (outcome, outcomes[first])
        for names in EQUIVALENT
        for trial, outcome in outcomes.items()
        if trial.method in names[1:] and (first := Trial(names[0], trial.stress, trial.seed)) in outcomes
    ]
    return {"compared": len(pairs), "differ": sum(one != other for one, other in pairs)}


def rank(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return names by collapse rate, the lowest first; ties by mean final accuracy, the highest first."""
    known = [name for name in methods if methods[name]["collapse"]["total"]]
    return sorted(
        known, key=lambda name: (methods[name]["collapse"]["rate"], -methods[name]["final"]["mean"])
    )


def _ahead(grid: Grid, runs: Sequence[TrialOutcome], name: str) -> list[dict[str, Any]]:
    """Return the levels where another objective had the higher mean final accuracy, with the difference."""
    found = []
    for stress in grid.stresses if name in grid.methods else []:
        here = [run for run in runs if run.trial.stress == stress]
        for other in grid.methods:
            gap = difference(here, other, name)
            if gap.mean is not None and gap.mean > 0:
                found.append({"method": other, **asdict(stress), **asdict(gap)})
    return found


def stress_of(values: Mapping[str, Any]) -> Stress:
    """Return the level of stress of an entry of ``ahead_of_cpgd``."""
    return Stress(values["rate"], values["updates"])


# 97.5 % quantile of Student's t by degrees of freedom, tabulated; beyond, the Cornish-Fisher expansion.
_T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z = 1.959964


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval, as wide as possible for a single value, None for no values.

    Attributes:
        n: number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


def mean_of(values: Sequence[float], low: float = -math.inf, high: float = math.inf) -> Mean:
    """Return the mean of independent values with Student's interval.

    Args:
        values: values that are not finite are left out.
        low: lower bound of the interval.
        high: upper bound of the interval.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Mean(None, None, None, 0)
    mean = fmean(known)
    if len(known) == 1:
        return Mean(mean, low, high, 1)
    half = t_quantile(len(known) - 1) * stdev(known) / math.sqrt(len(known))
    return Mean(mean, max(low, mean - half), min(high, mean + half), len(known))


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t for the degrees of freedom, to three decimals."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)
