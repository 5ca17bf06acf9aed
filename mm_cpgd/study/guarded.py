"""The guard on a study's runs: replayed over all, and at work in those that collapsed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mm_cpgd.errors import UserError
from mm_cpgd.run import EvaluatorFactory
from mm_cpgd.study.grid import config_of
from mm_cpgd.study.guard_summary import summarise_guard
from mm_cpgd.study.outcome import find_collapse
from mm_cpgd.study.results import read_result
from mm_cpgd.study.running import GUARD, complete, read_study, tell_failed
from mm_cpgd.study.summary import ShareInterval
from mm_cpgd.study.watched import rescues, watched
from mm_cpgd.tracking.files import finite, write_lines

FOLDER = "guarded"
"""In the study's folder: the runs that are done again with rollback."""
ROLLBACK = "guard.action=rollback"


def report_guard(folder: Path, interval: ShareInterval, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Write ``guard.json`` from the results that are there, the guarded ones in ``guarded/`` too; return it.

    Args:
        folder: of the study.
        interval: of a share.
        seeds: only their runs count; None: all.

    Raises:
        UserError: there is no study.
    """
    grid, results = read_study(folder)
    results = [result for result in results if seeds is None or result.trial.seed in seeds]
    if not results:
        raise UserError(
            f"{folder} has no finished runs yet; mm-cpgd study stability --output {folder} makes them"
        )
    again = [read_result(folder / FOLDER, result.trial) for result in results]
    completions = config_of(results[0].trial, folder, grid.changes).rollout.completions
    summary = summarise_guard(
        [watched(result, completions) for result in results],
        rescues(results, [result for result in again if result]),
        interval,
    )
    summary["seeds"] = sorted({result.trial.seed for result in results})
    write_lines(folder / GUARD, [json.dumps(finite(summary), indent=1, allow_nan=False)])
    return summary


def run_guarded(
    folder: Path,
    seeds: Sequence[int] | None,
    changes: Sequence[str],
    jobs: int,
    make_evaluator: EvaluatorFactory,
    console: Console,
) -> None:
    """Do the study's collapsed runs again with ``guard.action=rollback``; go on where that was broken off.

    Args:
        folder: of the study.
        seeds: only these; None: all.
        changes: config overrides over the study's, for instance ``guard.step_factor=0.5``.
        jobs: processes.
        make_evaluator: held-out evaluation.
        console: for progress.

    Raises:
        UserError: there is no study, or a change is not possible.
        RunEnded: Ctrl-C, or runs failed again and again.
    """
    grid, results = read_study(folder)
    trials = [
        result.trial
        for result in results
        if (seeds is None or result.trial.seed in seeds)
        and find_collapse(result.rows, result.diverged is not None)
    ]
    tell_failed(
        complete(trials, folder / FOLDER, (*grid.changes, ROLLBACK, *changes), jobs, make_evaluator, console)
    )
