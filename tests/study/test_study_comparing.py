"""Two studies beside each other: rates within intervals, and the order of the objectives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.scoring.statistics import wilson_interval
from mm_cpgd.cli.study import study_app
from mm_cpgd.errors import UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.compare import compare_studies
from mm_cpgd.study.grid import Grid
from mm_cpgd.study.results import Result, write_result

GRID = Grid(("pg", "cpgd", "grpo"), (2e-5, 2e-4), (1,), (1, 2))


def fill(folder: Path, finals: dict[str, float], grid: Grid = GRID) -> Path:
    """A study whose objectives end at these accuracies, after a best of 0.9."""
    folder.mkdir()
    (folder / running.GRID).write_text(json.dumps(grid.as_dict()))
    for trial in grid.trials():
        accuracies = (0.2, 0.9, finals[trial.method])
        rows = [{"iteration": i, "eval/accuracy": x, "eval/format": 1.0} for i, x in enumerate(accuracies)]
        write_result(folder, Result(trial, "key", "code", None, 2, 1.0, 1.0, rows))
    return folder


def test_the_same_study_twice_agrees(tmp_path):
    finals = {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8}
    found = compare_studies(fill(tmp_path / "a", finals), fill(tmp_path / "b", finals), wilson_interval)
    assert found.rankings == (["cpgd", "grpo", "pg"], ["cpgd", "grpo", "pg"])
    assert (found.tau, found.turned, found.levels) == (1.0, [], 2)
    assert all(found.agrees(name) for name in GRID.methods)


def test_other_rates_and_another_order_are_told(tmp_path):
    first = fill(tmp_path / "a", {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8})
    second = fill(tmp_path / "b", {"pg": 0.8, "cpgd": 0.85, "grpo": 0.9})
    found = compare_studies(first, second, wilson_interval)
    # The order is turned in one pair of three: τ = 1 − 2/3. PG: 4 of 4 against 0 of 4 collapsed.
    assert found.rankings[1] == ["grpo", "cpgd", "pg"]
    assert (found.tau, found.turned) == (pytest.approx(1 / 3), [("cpgd", "grpo")])
    assert [found.agrees(name) for name in ("pg", "cpgd")] == [False, True]
    output = CliRunner().invoke(study_app, ["compare", str(first), str(second)]).output
    assert "in another order: CPGD and GRPO" in " ".join(output.split())


def test_only_what_both_hold_is_compared(tmp_path):
    small = replace(GRID, methods=("cpgd", "rloo"), rates=(2e-4, 6e-4))
    first = fill(tmp_path / "a", {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8})
    second = fill(tmp_path / "b", {"cpgd": 0.9, "rloo": 0.8}, small)
    found = compare_studies(first, second, wilson_interval)
    assert (list(found.methods), found.levels, found.tau) == (["cpgd"], 1, None)
    assert found.methods["cpgd"][0]["collapse"]["total"] == 2


def test_studies_of_nothing_in_common_are_refused(tmp_path):
    first = fill(tmp_path / "a", {"pg": 0.1, "cpgd": 0.9, "grpo": 0.8})
    second = fill(tmp_path / "b", {"rloo": 0.8}, replace(GRID, methods=("rloo",)))
    with pytest.raises(UserError, match="share no objective"):
        compare_studies(first, second, wilson_interval)
