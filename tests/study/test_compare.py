"""Comparison of two studies: rates within intervals, and the order of the objectives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mm_cpgd.cli.study import study_app
from mm_cpgd.errors import UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.compare import compare_studies
from mm_cpgd.study.grid import Grid
from mm_cpgd.study.results import StudyRun, write_run

GRID = Grid(("pg", "cpgd", "grpo"), (2e-5, 2e-4), (1,), (1, 2))


def fill(folder: Path, finals: dict[str, float], grid: Grid = GRID) -> Path:
    """A study whose objectives end at these accuracies, after a best of 0.9."""
    folder.mkdir()
    (folder / running.GRID_FILE).write_text(json.dumps(grid.as_dict()))
    for trial in grid.trials():
        accuracies = (0.2, 0.9, finals[trial.method])
        rows = [{"iteration": i, "eval/accuracy": x, "eval/format": 1.0} for i, x in enumerate(accuracies)]
        write_run(folder, StudyRun(trial, "key", "code", None, 2, 1.0, 1.0, rows))
    return folder


def test_the_same_study_twice_agrees(tmp_path):
    finals = {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8}
    found = compare_studies(fill(tmp_path / "a", finals), fill(tmp_path / "b", finals))
    assert found.rankings == (["cpgd", "grpo", "pg"], ["cpgd", "grpo", "pg"])
    assert (found.tau, found.swapped, found.levels) == (1.0, [], 2)
    assert all(found.agrees(name) for name in GRID.methods)


def test_different_rates_and_orders_are_reported(tmp_path):
    first = fill(tmp_path / "a", {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8})
    second = fill(tmp_path / "b", {"pg": 0.8, "cpgd": 0.85, "grpo": 0.9})
    found = compare_studies(first, second)
    # The order is reversed in one pair of three: τ = 1 − 2/3. PG: 4 of 4 against 0 of 4 collapsed.
    assert found.rankings[1] == ["grpo", "cpgd", "pg"]
    assert (found.tau, found.swapped) == (pytest.approx(1 / 3), [("cpgd", "grpo")])
    assert [found.agrees(name) for name in ("pg", "cpgd")] == [False, True]
    output = CliRunner().invoke(study_app, ["compare", str(first), str(second)]).output
    assert "in another order: CPGD and GRPO" in " ".join(output.split())


def test_only_objectives_and_levels_in_both_are_compared(tmp_path):
    small = replace(GRID, methods=("cpgd", "rloo"), rates=(2e-4, 6e-4))
    first = fill(tmp_path / "a", {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8})
    second = fill(tmp_path / "b", {"cpgd": 0.9, "rloo": 0.8}, small)
    found = compare_studies(first, second)
    assert (list(found.methods), found.levels, found.tau) == (["cpgd"], 1, None)
    assert found.methods["cpgd"][0]["collapse"]["total"] == 2


def test_studies_with_nothing_in_common_are_refused(tmp_path):
    first = fill(tmp_path / "a", {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8})
    second = fill(tmp_path / "b", {"rloo": 0.8}, replace(GRID, methods=("rloo",)))
    with pytest.raises(UserError, match="share no objective"):
        compare_studies(first, second)
