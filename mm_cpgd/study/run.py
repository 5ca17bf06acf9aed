"""Driver of a study: the runs that are still missing, their execution, and the report on all of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.study.grid import Grid, Trial, config_of, grid_from
from mm_cpgd.study.page import write_page
from mm_cpgd.study.pool import run_all
from mm_cpgd.study.results import Result, key_of, read_result
from mm_cpgd.study.summary import ShareInterval, summarise
from mm_cpgd.study.worker import serve
from mm_cpgd.tracking.files import finite, write_lines
from mm_cpgd.training.run import EvaluatorFactory

GRID = "grid.json"
GUARD = "guard.json"
"""What ``mm-cpgd study guard`` found, see ``guard_summary.summarise_guard``."""


def run_study(
    grid: Grid,
    folder: Path,
    jobs: int,
    make_evaluator: EvaluatorFactory,
    interval: ShareInterval,
    console: Console,
) -> Path:
    """Do what is missing of the grid, and write summary, pictures and page; return the page.

    Raises:
        UserError: the folder holds something else, or a config cannot be run.
        RunEnded: some runs failed again and again; all else is done and written.
    """
    _claim(folder, grid)
    failed = complete(grid.trials(), folder, grid.changes, jobs, make_evaluator, console)
    page = report_study(folder, interval)
    tell_failed(failed)
    return page


def complete(
    trials: Sequence[Trial],
    folder: Path,
    changes: Sequence[str],
    jobs: int,
    make_evaluator: EvaluatorFactory,
    console: Console,
) -> dict[Trial, str]:
    """Do those of the trials that are not done yet; return those that failed for good, with the reason.

    Raises:
        UserError: a config cannot be run.
        RunEnded: Ctrl-C; what is done stays.
    """
    missing = unfinished(trials, folder, changes)
    done = len(trials) - len(missing)
    console.print(f"{len(trials)} runs, {done} already done, {jobs} at a time → {folder}")
    if not missing:
        return {}
    progress = _Progress(len(missing), console)
    try:
        return run_all(missing, folder, changes, jobs, serve, (make_evaluator,), progress)
    except KeyboardInterrupt:
        text = f"stopped after {progress.done} of {len(missing)} runs; the same command goes on"
        raise RunEnded(text, 130) from None
    finally:
        shutil.rmtree(folder / "work", ignore_errors=True)


def tell_failed(failed: Mapping[Trial, str]) -> None:
    """End the command if runs failed.

    Raises:
        RunEnded: some did; all else is done and written.
    """
    if failed:
        trial, reason = next(iter(failed.items()))
        raise RunEnded(f"{len(failed)} runs failed, {trial.name} first; the page is of the others. {reason}")


def unfinished(trials: Sequence[Trial], folder: Path, changes: Sequence[str]) -> list[Trial]:
    """Return the trials without a result of the same settings and versions."""

    def is_done(trial: Trial) -> bool:
        result = read_result(folder, trial)
        return result is not None and result.key == key_of(config_of(trial, folder, changes))

    return [trial for trial in trials if not is_done(trial)]


def report_study(folder: Path, interval: ShareInterval, page: Path | None = None) -> Path:
    """Write ``summary.json``, pictures and page from the results that are there; return the page.

    Args:
        folder: of the study.
        interval: of a share.
        page: where to; None: ``stability.md`` in the folder. Pictures go to a folder beside it.

    Raises:
        UserError: there is no study.
    """
    grid, results = read_study(folder)
    summary = summarise(grid, results, interval)
    text = json.dumps(finite(summary), indent=1, allow_nan=False)
    write_lines(folder / "summary.json", [text])
    file = folder / GUARD
    guard = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return write_page(page or folder / "stability.md", summary, results, guard)


def read_study(folder: Path) -> tuple[Grid, list[Result]]:
    """Return a study's grid and its results so far.

    Raises:
        UserError: there is no study, or a file of it is damaged.
    """
    file = folder / GRID
    if not file.is_file():
        raise UserError(
            f"{folder} holds no study (no {GRID}); mm-cpgd study stability --output {folder} makes one"
        )
    grid = grid_from(json.loads(file.read_text(encoding="utf-8")))
    found = (read_result(folder, trial) for trial in grid.trials())
    return grid, [result for result in found if result]


def _claim(folder: Path, grid: Grid) -> None:
    """Take the folder; the grid may have changed since: results of equal settings still count."""
    if folder.exists() and not (folder / GRID).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no study; choose another --output")
    write_lines(folder / GRID, [json.dumps(grid.as_dict(), indent=1)])


class _Progress:
    """Says after each run how many are done and how long the rest will take."""

    def __init__(self, total: int, console: Console) -> None:
        self.total = total
        self.console = console
        self.done = 0
        self.started = time.perf_counter()

    def __call__(self, trial: Trial, failure: str | None) -> None:
        self.done += 1
        left = (time.perf_counter() - self.started) / self.done * (self.total - self.done)
        hours, minutes = divmod(round(left / 60), 60)
        what = f" [red]failed[/]: {escape(failure)}" if failure else ""
        self.console.print(f"{self.done}/{self.total} {trial.name}{what}, {hours}:{minutes:02d} h left")


def choose_jobs(wanted: int | None) -> int:
    """Return how many processes: as asked, else one for each core that this process may use.

    Raises:
        UserError: fewer than one.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"--jobs {wanted}: at least one process is needed; leave it out for one a core")
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
