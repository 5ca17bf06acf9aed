"""Execution of a study: only missing runs, failures, and refused folders."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.results import run_file, write_run
from mm_cpgd.study.run import choose_jobs, report_study, run_study, unfinished
from tests.fakes.study import GRID, fill, made_up


@pytest.fixture
def _undrawn(monkeypatch):
    monkeypatch.setattr("mm_cpgd.study.page.draw_plots", lambda *_: [f"{i}.png" for i in range(7)])


def test_runs_with_other_settings_are_repeated(tmp_path):
    fill(tmp_path)
    trials, other = GRID.trials(), replace(GRID, seeds=(3,)).trials()
    assert unfinished(trials, tmp_path, ()) == []
    assert unfinished([*trials, *other], tmp_path, ()) == other
    assert unfinished(trials, tmp_path, ("rollout.prompts=16",)) == trials


@pytest.mark.usefixtures("_undrawn")
def test_a_study_runs_only_missing_trials(tmp_path, monkeypatch):
    fill(tmp_path)
    missing = GRID.trials()[3]
    run_file(tmp_path, missing).unlink()

    def pool(trials, folder, *others):
        assert trials == [missing]
        write_run(folder, made_up(missing, GRID, folder, 0.5))
        return {}

    monkeypatch.setattr(running, "run_all", pool)
    page = run_study(GRID, tmp_path, 1, Console(quiet=True))
    assert f"{len(GRID.trials())} of {len(GRID.trials())} runs" in page.read_text()


def test_runs_that_failed_end_the_command_after_the_page_is_written(tmp_path, monkeypatch):
    trial = GRID.trials()[0]
    monkeypatch.setattr(running, "run_all", lambda *_: {trial: "a bug"})
    with pytest.raises(RunEnded, match=trial.name):
        run_study(GRID, tmp_path, 1, Console(quiet=True))
    assert (tmp_path / "stability.md").is_file()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="choose another"):
        run_study(GRID, tmp_path, 1, Console(quiet=True))


def test_a_report_without_a_study_names_the_command_that_runs_one(tmp_path):
    with pytest.raises(UserError, match="mm-cpgd study stability"):
        report_study(tmp_path)


def test_jobs_are_one_per_core_unless_requested():
    assert choose_jobs(None) >= 1
    assert choose_jobs(7) == 7
    with pytest.raises(UserError, match="--jobs 0"):
        choose_jobs(0)
