"""Execution of a study: its missing runs, their progress, and the report on all of them."""

from __future__ import annotations

import json
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
from mm_cpgd.study.results import StudyRun, key_of, read_run
from mm_cpgd.study.summary import summarise
from mm_cpgd.study.worker import serve
from mm_cpgd.tracking.files import finite, write_lines
from rewards.workers.pool import usable_cores

GRID_FILE = "grid.json"
GUARD_FILE = "guard.json"
"""Result of ``mm-cpgd study guard``, see ``guard.summarise_guard``."""


def run_study(grid: Grid, folder: Path, jobs: int, console: Console) -> Path:
    """Run the missing trials of the grid, and write summary, plots and page; return the page.

    Raises:
        UserError: the folder holds something else, or a config cannot be run.
        RunEnded: some runs failed repeatedly; everything else is done and written.
    """
    prepare_folder(folder, grid)
    failed = run_missing(grid.trials(), folder, grid.changes, jobs, console)
    page = report_study(folder)
    raise_if_failed(failed)
    return page


def run_missing(
    trials: Sequence[Trial],
    folder: Path,
    changes: Sequence[str],
    jobs: int,
    console: Console,
) -> dict[Trial, str]:
    """Run the trials without a result; return those that failed repeatedly, with the reason.

    Raises:
        UserError: a config cannot be run.
        RunEnded: interrupted by Ctrl-C; finished runs are kept.
    """
    missing = unfinished(trials, folder, changes)
    done = len(trials) - len(missing)
    console.print(f"{len(trials)} runs, {done} already done, {jobs} at a time → {folder}")
    if not missing:
        return {}
    progress = _Progress(len(missing), console)
    try:
        return run_all(missing, folder, changes, jobs, serve, (), progress)
    except KeyboardInterrupt:
        text = f"stopped after {progress.done} of {len(missing)} runs; the same command resumes the study"
        raise RunEnded(text, 130) from None
    finally:
        shutil.rmtree(folder / "work", ignore_errors=True)


def raise_if_failed(failed: Mapping[Trial, str]) -> None:
    """End the command with an error if runs failed.

    Raises:
        RunEnded: some runs failed; everything else is done and written.
    """
    if failed:
        trial, reason = next(iter(failed.items()))
        raise RunEnded(f"{len(failed)} runs failed, {trial.name} first; the page covers the others. {reason}")


def unfinished(trials: Sequence[Trial], folder: Path, changes: Sequence[str]) -> list[Trial]:
    """Return the trials without a result that has the same settings and versions."""

    def is_done(trial: Trial) -> bool:
        run = read_run(folder, trial)
        return run is not None and run.key == key_of(config_of(trial, folder, changes))

    return [trial for trial in trials if not is_done(trial)]


def report_study(folder: Path, page: Path | None = None) -> Path:
    """Write ``summary.json``, plots and page from the existing results; return the page.

    Args:
        folder: folder of the study.
        page: file of the page; None: ``stability.md`` in the folder. Plots go to a folder beside it.

    Raises:
        UserError: the folder holds no study.
    """
    grid, runs = read_study(folder)
    summary = summarise(grid, runs)
    text = json.dumps(finite(summary), indent=1, allow_nan=False)
    write_lines(folder / "summary.json", [text])
    file = folder / GUARD_FILE
    guard = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return write_page(page or folder / "stability.md", summary, runs, guard)


def read_study(folder: Path) -> tuple[Grid, list[StudyRun]]:
    """Return a study's grid and its finished runs.

    Raises:
        UserError: the folder holds no study, or a file of it is damaged.
    """
    file = folder / GRID_FILE
    if not file.is_file():
        raise UserError(
            f"{folder} holds no study (no {GRID_FILE}); mm-cpgd study stability --output {folder} starts one"
        )
    grid = grid_from(json.loads(file.read_text(encoding="utf-8")))
    found = (read_run(folder, trial) for trial in grid.trials())
    return grid, [run for run in found if run]


def prepare_folder(folder: Path, grid: Grid) -> None:
    """Write the grid; it may differ from an earlier one: results with equal settings still count."""
    if folder.exists() and not (folder / GRID_FILE).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no study; choose another --output")
    write_lines(folder / GRID_FILE, [json.dumps(grid.as_dict(), indent=1)])


class _Progress:
    """Progress of a study: after each run, how many are done and the time left."""

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
    """Return the number of processes: as requested, or one per core that this process may use.

    Raises:
        UserError: fewer than one was requested.
    """
    if wanted is not None and wanted < 1:
        raise UserError(f"--jobs {wanted}: at least one process is needed; leave it out for one per core")
    return wanted or usable_cores()
