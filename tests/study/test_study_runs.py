"""Runs of the study: equal in any order and process, resumed by file, and the page at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from eval.scoring.statistics import wilson_interval
from mm_cpgd.cli.main import held_out_evaluator
from mm_cpgd.cli.study import study_app
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.study import run as running
from mm_cpgd.study.grid import QUICK, Grid, Stress, Trial, config_of
from mm_cpgd.study.page import READING, render
from mm_cpgd.study.results import Result, key_of, read_result, result_file, write_result
from mm_cpgd.study.run import choose_jobs, report_study, run_study, unfinished
from mm_cpgd.study.worker import Bench

# The cold-started policy: a random one earns nothing, and all objectives would agree on doing nothing.
SMALL = (
    "rollout.prompts=4", "rollout.completions=4", "training.iterations=2",
    "rollout.max_new_tokens=32", "data.train.limit=8", "data.eval.limit=2", "evaluation.every=1",
)  # fmt: skip
TRIAL = Trial("cpgd", Stress(1e-4, 4), 1)
GRID = Grid(("pg", "cpgd"), (2e-5, 2e-4), (1, 4), (1, 2))


@pytest.fixture
def _undrawn(monkeypatch):
    monkeypatch.setattr("mm_cpgd.study.page.draw_pictures", lambda *_: [f"{i}.png" for i in range(7)])


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A process's bench that has run something else already."""
    return Bench(held_out_evaluator)


def numbers(result: Result) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if not k.startswith(("seconds/", "tokens/per"))} for row in result.rows
    ]


def made_up(trial: Trial, grid: Grid, folder: Path, final: float) -> Result:
    rows = [
        {"iteration": at, "eval/accuracy": accuracy, "eval/format": 1.0, "policy/drift": 0.1 * at}
        | {"policy/ratio_max": 1 + at, "policy/entropy": 0.2, "policy/clip_fraction": 0.1}
        for at, accuracy in ((0, 0.1), (14, 0.9), (28, final))
    ]
    return Result(trial, key_of(config_of(trial, folder, grid.changes)), "code", None, 28, 9.0, 8.0, rows)


def fill(folder: Path, grid: Grid = GRID) -> None:
    folder.mkdir(exist_ok=True)
    (folder / running.GRID).write_text(json.dumps(grid.as_dict()))
    for trial in grid.trials():
        final = 0.9 if trial.method == "cpgd" else 0.1 * trial.seed
        write_result(folder, made_up(trial, grid, folder, final))


def test_a_run_does_not_depend_on_what_its_process_ran_before(tmp_path, bench):
    bench.run(Trial("grpo", Stress(1e-2, 1), 2), tmp_path / "b", SMALL)
    used = bench.run(TRIAL, tmp_path / "c", SMALL)
    fresh = Bench(held_out_evaluator).run(TRIAL, tmp_path / "a", SMALL)
    assert numbers(used) == numbers(fresh)
    assert [row["iteration"] for row in fresh.rows] == [0, 1, 2]
    assert fresh.rows[1]["optimizer/grad_norm"] > 0
    assert not (tmp_path / "a").exists()


def test_with_one_update_the_ablations_are_the_same_computation(tmp_path, bench):
    def last(name: str) -> list[float]:
        row = bench.run(Trial(name, Stress(1e-3, 1), 1), tmp_path / name, SMALL).rows[-1]
        return [row[key] for key in ("optimizer/grad_norm", "policy/entropy", "completion/length_mean")]

    assert last("cpg") == last("cpgd") == last("pgd") == last("pg_std") != last("cpgd_equal")


def test_a_result_comes_back_as_it_was_written(tmp_path):
    result = made_up(TRIAL, GRID, tmp_path, 0.5)
    write_result(tmp_path, result)
    assert read_result(tmp_path, TRIAL) == result


def test_a_damaged_result_is_named(tmp_path):
    write_result(tmp_path, made_up(TRIAL, GRID, tmp_path, 0.5))
    result_file(tmp_path, TRIAL).write_text('{"trial": ')
    with pytest.raises(UserError, match="cpgd-lr1e-4-u4-s1"):
        read_result(tmp_path, TRIAL)


def test_the_key_changes_with_any_setting_but_not_with_the_folder(tmp_path):
    keys = [
        key_of(config_of(TRIAL, folder, changes))
        for folder, changes in (
            (tmp_path, ()),
            (tmp_path / "b", ()),
            (tmp_path, ("rollout.temperature=0.9",)),
        )
    ]
    assert keys[0] == keys[1] != keys[2]


def test_results_of_other_settings_are_run_again(tmp_path):
    fill(tmp_path)
    trials, other = GRID.trials(), replace(GRID, seeds=(3,)).trials()
    assert unfinished(trials, tmp_path, ()) == []
    assert unfinished([*trials, *other], tmp_path, ()) == other
    assert unfinished(trials, tmp_path, ("rollout.prompts=16",)) == trials


@pytest.mark.usefixtures("_undrawn")
def test_a_study_does_only_what_is_missing(tmp_path, monkeypatch):
    fill(tmp_path)
    missing = GRID.trials()[3]
    result_file(tmp_path, missing).unlink()

    def pool(trials, folder, *others):
        assert trials == [missing]
        write_result(folder, made_up(missing, GRID, folder, 0.5))
        return {}

    monkeypatch.setattr(running, "run_all", pool)
    page = run_study(GRID, tmp_path, 1, held_out_evaluator, wilson_interval, Console(quiet=True))
    assert f"{len(GRID.trials())} of {len(GRID.trials())} runs" in page.read_text()


def test_runs_that_failed_end_the_command_after_the_page_is_written(tmp_path, monkeypatch):
    trial = GRID.trials()[0]
    monkeypatch.setattr(running, "run_all", lambda *_: {trial: "a bug"})
    with pytest.raises(RunEnded, match=trial.name):
        run_study(GRID, tmp_path, 1, held_out_evaluator, wilson_interval, Console(quiet=True))
    assert (tmp_path / "stability.md").is_file()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="choose another"):
        run_study(GRID, tmp_path, 1, held_out_evaluator, wilson_interval, Console(quiet=True))


def test_a_report_of_no_study_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="mm-cpgd study stability"):
        report_study(tmp_path, wilson_interval)


def test_page_and_pictures_are_made_from_the_results(tmp_path):
    fill(tmp_path / "study")
    page = report_study(tmp_path / "study", wilson_interval, tmp_path / "docs" / "stability.md")
    text = page.read_text()
    # PG ends at 10 % and 20 % of a best of 90 %: all eight of its runs collapsed, none of CPGD's.
    assert "| PG | 8/8 = 100 % (68–100) |" in text
    assert "| CPGD | 0/8 = 0 % (0–32) |" in text
    assert "In collapses CPGD is number 1 of 2." in text
    pictures = {line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert len(pictures) == 7
    assert all((page.parent / picture).stat().st_size > 5000 for picture in pictures)
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert summary["methods"]["pg"]["collapse"]["rate"] == 1.0


@pytest.mark.usefixtures("_undrawn")
def test_the_page_says_when_cpgd_is_not_first(tmp_path):
    grid = replace(GRID, methods=("cpgd", "grpo"))
    fill(tmp_path, grid)
    for trial in grid.trials():
        write_result(tmp_path, made_up(trial, grid, tmp_path, 0.1 if trial.method == "cpgd" else 0.8))
    text = report_study(tmp_path, wilson_interval).read_text()
    assert "In collapses CPGD is number 2 of 2; GRPO is first." in text
    assert "| GRPO | 2e-4 × 4 | +70.0 (+70.0 to +70.0) |" in text


@pytest.mark.usefixtures("_undrawn")
def test_what_a_person_wrote_into_the_page_is_kept(tmp_path):
    fill(tmp_path)
    page = report_study(tmp_path, wilson_interval)
    first = page.read_text()
    page.write_text(first.replace(READING[0] + "\n", READING[0] + "\n### What it means\n\nMuch.\n"))
    again = report_study(tmp_path, wilson_interval).read_text()
    assert "### What it means\n\nMuch.\n" + READING[1] in again
    assert again.count(READING[0]) == first.count(READING[0]) == 1


@pytest.mark.usefixtures("_undrawn")
def test_a_study_that_was_broken_off_has_a_page_with_gaps(tmp_path):
    fill(tmp_path, replace(GRID, methods=("pg", "cpgd", "grpo")))
    for file in (tmp_path / "runs").glob("grpo-*"):
        file.unlink()
    text = report_study(tmp_path, wilson_interval).read_text()
    assert "**The study is incomplete**" in text
    assert "| PG | +75.0 (" in text


def test_the_page_before_any_run_has_no_findings():
    assert "None yet" in render(Grid(), None)


def test_one_process_a_core_unless_asked_otherwise():
    assert choose_jobs(None) >= 1
    assert choose_jobs(7) == 7
    with pytest.raises(UserError, match="--jobs 0"):
        choose_jobs(0)


def test_the_command_makes_the_grid_that_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        running, "run_study", lambda grid, folder, jobs, *_: asked.append((grid, folder, jobs))
    )
    options = ["stability", "--quick", "--seeds", "4-5", "--jobs", "3", "--output", str(tmp_path), "a.b=1"]
    assert CliRunner().invoke(study_app, options).exit_code == 0
    assert asked == [(replace(QUICK, seeds=(4, 5), changes=("a.b=1",)), tmp_path, 3)]
