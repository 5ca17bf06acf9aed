"""``mm-cpgd study``: the grid that is run, and the guard's table."""

from __future__ import annotations

from dataclasses import replace

from typer.testing import CliRunner

from mm_cpgd.cli.study import study_app
from mm_cpgd.study import methods
from mm_cpgd.study import run as running
from mm_cpgd.study.grid import QUICK, Grid
from tests.fakes.study import fill_for_guard


def test_the_command_runs_the_requested_grid(tmp_path, monkeypatch):
    requested = []
    monkeypatch.setattr(
        running, "run_study", lambda grid, folder, jobs, *_: requested.append((grid, folder, jobs))
    )
    options = ["stability", "--quick", "--seeds", "4-5", "--jobs", "3", "--output", str(tmp_path), "a.b=1"]
    assert CliRunner().invoke(study_app, options).exit_code == 0
    assert requested == [(replace(QUICK, seeds=(4, 5), changes=("a.b=1",)), tmp_path, 3)]


def test_the_command_prints_the_shares(tmp_path):
    fill_for_guard(tmp_path)
    result = CliRunner().invoke(study_app, ["guard", str(tmp_path), "--no-again"])
    assert result.exit_code == 0
    assert "0/4 = 0 %" in result.output
    assert "collapsing runs with an alarm before the loss" in result.output


def test_the_command_runs_the_chosen_recipes_and_conditions(tmp_path, monkeypatch):
    requested = []

    def run(grid, folder, jobs, console):
        requested.append((grid, folder, jobs))
        return folder

    monkeypatch.setattr(methods, "run_methods", run)
    options = [
        "methods",
        "--recipes",
        "pgd",
        "--conditions",
        "drift",
        "--rates",
        "2e-4,2e-5",
        "--seeds",
        "1-2",
    ]
    result = CliRunner().invoke(study_app, [*options, "--output", str(tmp_path), "--jobs", "1", "a.b=1"])
    assert result.exit_code == 0
    names = ("grpo", "pgd", "pgd@alpha_0.03", "pgd@alpha_0.1", "pgd@alpha_0.3", "pgd@alpha_1")
    assert requested == [(Grid(names, (2e-5, 2e-4), (4,), (1, 2), ("a.b=1",)), tmp_path, 1)]


def test_the_command_needs_positive_rates(tmp_path):
    for rates in ("0,1e-5", "high"):
        result = CliRunner().invoke(
            study_app, ["methods", "--rates", rates, "--output", str(tmp_path / "new")]
        )
        assert "is not a list of positive numbers" in str(result.exception)
    assert not (tmp_path / "new").exists()
