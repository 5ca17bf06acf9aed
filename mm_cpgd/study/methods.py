"""Study of methods: recipes, plain and under conditions, compared at equal iterations and at equal tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console

from mm_cpgd.config.recipes import load_recipe, recipe_names
from mm_cpgd.errors import UserError
from mm_cpgd.study.conditions import CONDITIONS
from mm_cpgd.study.grid import Grid, Trial
from mm_cpgd.study.methods_page import write_methods
from mm_cpgd.study.results import ACCURACY, Outcome, StudyRun, outcome_of
from mm_cpgd.study.run import prepare_folder, raise_if_failed, read_study, run_missing
from mm_cpgd.study.summary import TrialOutcome, chosen_rates, collapses, mean_of
from mm_cpgd.tracking.files import finite, write_lines

BASELINE = "grpo"
"""Recipe that every other is compared with, and whose tokens are the budget; always part of the study."""
SUMMARY = "methods.json"


def methods_of(recipes: Sequence[str] | None, conditions: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the study's methods.

    Args:
        recipes: recipes to run; None: all shipped ones, or with conditions those of their grids.
        conditions: names of grids of ``CONDITIONS``, applied to those of the recipes that they fit.

    Raises:
        UserError: there is no such recipe, or a grid fits none of the recipes.
    """
    for name in recipes or ():
        load_recipe(name)  # names the nearest of an unknown one
    names = list(recipes or ([] if conditions else recipe_names()))
    for grid_name in conditions:
        grid = CONDITIONS[grid_name]
        own = [name for name in recipes or grid.recipes if grid.any_recipe or name in grid.recipes]
        if not own:
            raise UserError(
                f"--conditions {grid_name} fits none of the recipes {', '.join(recipes or ())}; "
                f"add one of {', '.join(grid.recipes)}"
            )
        for name in own:
            names += [name, *(f"{name}@{condition.name}" for condition in grid.conditions)]
    return tuple(dict.fromkeys([BASELINE, *names]))


def run_methods(grid: Grid, folder: Path, jobs: int, console: Console) -> Path:
    """Run the missing runs of the grid, and write ``methods.json`` and ``methods.md``; return the latter.

    Raises:
        UserError: the folder holds something else, or a config cannot be run.
        RunEnded: some runs failed repeatedly; everything else is done and written.
    """
    prepare_folder(folder, grid)
    failed = run_missing(grid.trials(), folder, grid.changes, jobs, console)
    page = folder / "methods.md"
    write_methods(page, report_methods(folder))
    raise_if_failed(failed)
    return page


def report_methods(folder: Path) -> dict[str, Any]:
    """Write ``methods.json`` from the finished runs of a folder; return its content.

    Raises:
        UserError: the folder holds no study.
    """
    grid, runs = read_study(folder)
    summary: dict[str, Any] = finite(summarise_methods(grid, runs))
    write_lines(folder / SUMMARY, [json.dumps(summary, indent=1, allow_nan=False)])
    return summary


@dataclass(frozen=True)
class Measured:
    """A finished run in the numbers of the tables.

    Attributes:
        trial: its trial.
        outcome: its outcome at the end.
        final: held-out accuracy at the end.
        at_budget: held-out accuracy when the budget of tokens was sampled.
        short: whether it sampled less than the budget, so that ``at_budget`` is its end.
        seconds: wall-clock time.
        cpu_seconds: CPU time of its process.
    """

    trial: Trial
    outcome: Outcome
    final: float
    at_budget: float
    short: bool
    seconds: float
    cpu_seconds: float


def accuracy_at(run: StudyRun, tokens: float) -> tuple[float, bool]:
    """Return the held-out accuracy of a run once it has sampled a number of tokens, and whether it has not.

    Between evaluations the accuracy is interpolated over the tokens. The learning rate is constant, so that
    the run up to there is one with fewer iterations, but for recipes whose options change over the run. A run
    that ended because it was not finite has 0 from there on.

    Returns:
        Accuracy, at the end of the run if it sampled fewer tokens; whether it did.
    """
    sampled, curve = 0.0, []
    for row in run.rows:
        sampled += float(row.get("tokens/sampled") or 0.0)
        if ACCURACY in row:
            curve.append((sampled, float(row[ACCURACY] or 0.0)))
    if run.diverged is not None and tokens >= sampled:
        return 0.0, sampled < tokens
    for (left, low), (right, high) in pairwise(curve):
        if left <= tokens < right:
            return low + (high - low) * (tokens - left) / (right - left), False
    return (curve[-1][1] if curve else 0.0), sampled < tokens


def summarise_methods(grid: Grid, results: Sequence[StudyRun]) -> dict[str, Any]:
    """Return the summary of a study of methods.

    Keys: ``grid``; ``baseline``; ``budget`` (tokens: median of the baseline's runs); ``runs`` (``planned``,
    ``done``, ``cpu_seconds``, ``codes``); ``methods``: for each method that has runs ``iterations`` and
    ``tokens`` (each ``accuracy`` with interval over seeds, ``beside`` the difference paired by seed to
    ``against``, ``rates`` chosen), ``against``, ``short`` (runs below the budget), ``collapse``, ``sampled``,
    ``seconds`` and ``cpu_seconds`` (means per run over all rates). The rate of a seed is chosen on the other
    seeds, in the same way for every method and table.
    """
    outcomes = [
        TrialOutcome(one.trial, outcome_of(one.rows, one.diverged is not None, one.iterations))
        for one in results
    ]
    baseline = [run.outcome.sampled_tokens for run in outcomes if run.trial.method == BASELINE]
    budget = median(baseline) if baseline else 0.0
    runs = [_measure(one, run.outcome, budget) for one, run in zip(results, outcomes, strict=True)]
    own = {name: [run for run in runs if run.trial.method == name] for name in grid.methods}
    own = {name: mine for name, mine in own.items() if mine}
    return {
        "grid": grid.as_dict(),
        "baseline": BASELINE,
        "budget": budget,
        "runs": {
            "planned": len(grid.trials()),
            "done": len(results),
            "cpu_seconds": round(sum(one.cpu_seconds for one in results), 1),
            "codes": sorted({one.code for one in results}),
        },
        "methods": {name: _method(name, own) for name in own},
    }


def _measure(run: StudyRun, outcome: Outcome, budget: float) -> Measured:
    at_budget, short = accuracy_at(run, budget)
    return Measured(run.trial, outcome, outcome.final, at_budget, short, run.seconds, run.cpu_seconds)


def against(name: str) -> str:
    """Return what a method is compared with: under a condition the recipe without it, else the baseline."""
    recipe, at, _ = name.partition("@")
    return recipe if at else BASELINE


def _method(name: str, own: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    runs, other = own[name], own.get(against(name), [])
    return {
        "against": against(name),
        "iterations": _compared(
            {run.trial: run.final for run in runs}, {run.trial: run.final for run in other}
        ),
        "tokens": _compared(
            {run.trial: run.at_budget for run in runs}, {run.trial: run.at_budget for run in other}
        ),
        "short": sum(run.short for run in runs),
        "collapse": collapses([TrialOutcome(run.trial, run.outcome) for run in runs]),
        "sampled": fmean(run.outcome.sampled_tokens for run in runs),
        "seconds": fmean(run.seconds for run in runs),
        "cpu_seconds": fmean(run.cpu_seconds for run in runs),
    }


def _compared(values: Mapping[Trial, float], others: Mapping[Trial, float]) -> dict[str, Any]:
    mine, rates = _at_own_rate(values)
    theirs, _ = _at_own_rate(others)
    gaps = [value - theirs[seed] for seed, value in mine.items() if seed in theirs]
    return {
        "accuracy": asdict(mean_of(list(mine.values()), 0.0, 1.0)),
        "beside": asdict(mean_of(gaps, -1.0, 1.0)),
        "rates": rates,
    }


def _at_own_rate(values: Mapping[Trial, float]) -> tuple[dict[int, float], list[float]]:
    """Return each seed's value at the rate chosen on the other seeds, and the rates.

    With a single rate there is nothing to choose, and a single seed counts too.
    """
    rates = {trial.stress.rate for trial in values}
    chosen = {trial.seed: trial.stress.rate for trial in values} if len(rates) == 1 else chosen_rates(values)
    kept = {
        trial.seed: value for trial, value in values.items() if chosen.get(trial.seed) == trial.stress.rate
    }
    return kept, sorted({chosen[seed] for seed in kept})
