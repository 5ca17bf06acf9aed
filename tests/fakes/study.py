"""Stored studies with invented numbers."""

from __future__ import annotations

import json
from pathlib import Path

from mm_cpgd.study import run as running
from mm_cpgd.study.grid import Grid, Stress, Trial, config_of
from mm_cpgd.study.results import StudyRun, key_of, write_run

TRIAL = Trial("cpgd", Stress(1e-4, 4), 1)
GRID = Grid(("pg", "cpgd"), (2e-5, 2e-4), (1, 4), (1, 2))


def made_up(trial: Trial, grid: Grid, folder: Path, final: float) -> StudyRun:
    rows = [
        {"iteration": at, "eval/accuracy": accuracy, "eval/format": 1.0, "policy/drift": 0.1 * at}
        | {"policy/ratio_max": 1 + at, "policy/entropy": 0.2, "policy/clip_fraction": 0.1}
        for at, accuracy in ((0, 0.1), (14, 0.9), (28, final))
    ]
    return StudyRun(trial, key_of(config_of(trial, folder, grid.changes)), "code", None, 28, 9.0, 8.0, rows)


def fill(folder: Path, grid: Grid = GRID) -> None:
    folder.mkdir(exist_ok=True)
    (folder / running.GRID_FILE).write_text(json.dumps(grid.as_dict()))
    for trial in grid.trials():
        final = 0.9 if trial.method == "cpgd" else 0.1 * trial.seed
        write_run(folder, made_up(trial, grid, folder, final))


GUARD_GRID = Grid(("pg", "cpgd"), (2e-5, 2e-4), (1,), (1, 2))
LOW, HIGH = Stress(2e-5, 1), Stress(2e-4, 1)
RISING, FALLING = (0.2, 0.6, 0.8, 0.9), (0.2, 0.8, 0.5, 0.1)


def guarded_run(
    accuracies: tuple[float, ...],
    method: str = "pg",
    stress: Stress = HIGH,
    seed: int = 1,
    drift: dict[int, float] | None = None,
    back: dict[int, int] | None = None,
    diverged: str | None = None,
) -> StudyRun:
    """A run of twelve iterations, evaluated every fourth."""
    rows = []
    for at in range(13):
        row: dict[str, float] = {"iteration": at}
        if at % 4 == 0:
            row |= {"eval/accuracy": accuracies[at // 4], "eval/format": 1.0, "eval/n": 100.0}
        if at:
            row["policy/drift"] = (drift or {}).get(at, 0.001)
        if back and at in back:
            row["guard/rolled_back_to"] = back[at]
        rows.append(row)
    return StudyRun(Trial(method, stress, seed), "key", "code", diverged, 12, 1.0, 1.0, rows)


def fill_for_guard(folder) -> None:
    """Write a study: for every objective and seed, the run at the low rate rises and the other falls."""
    folder.mkdir(exist_ok=True)
    (folder / running.GRID_FILE).write_text(json.dumps(GUARD_GRID.as_dict()))
    for trial in GUARD_GRID.trials():
        run = guarded_run(RISING if trial.stress == LOW else FALLING, trial.method, trial.stress, trial.seed)
        write_run(folder, run)
