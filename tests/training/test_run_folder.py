"""Run folder: the folders that can be used, and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.tracking import MetricsLog
from mm_cpgd.training.run_folder import ExistingRun, prepare_run_folder, write_summary


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "config.yaml").write_text("name: old\n")
    return folder


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    prepare_run_folder(tmp_path / "a" / "b", ExistingRun())
    assert (tmp_path / "a" / "b").is_dir()


def test_an_existing_run_is_not_changed_without_a_flag(run: Path) -> None:
    with pytest.raises(UserError, match=r"already holds a run; --resume .* --overwrite"):
        prepare_run_folder(run, ExistingRun())
    assert (run / "config.yaml").exists()


def test_a_run_is_resumed_where_it_is(run: Path) -> None:
    prepare_run_folder(run, ExistingRun(resume=True))
    assert (run / "checkpoints" / "step-1").is_dir()


def test_resume_without_a_run_starts_one(tmp_path: Path) -> None:
    prepare_run_folder(tmp_path / "run", ExistingRun(resume=True))
    assert (tmp_path / "run").is_dir()


def test_overwrite_removes_the_run_and_leaves_other_files(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    prepare_run_folder(run, ExistingRun(overwrite=True))
    assert [entry.name for entry in run.iterdir()] == ["notes.txt"]


def test_resume_and_overwrite_exclude_each_other(run: Path) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        prepare_run_folder(run, ExistingRun(resume=True, overwrite=True))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for start in (ExistingRun(), ExistingRun(overwrite=True), ExistingRun(resume=True)):
        with pytest.raises(UserError, match="is not empty and holds no run"):
            prepare_run_folder(tmp_path, start)


def test_a_start_that_failed_because_of_its_rows_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "quarantine.jsonl").write_text("{}\n")
    prepare_run_folder(tmp_path, ExistingRun())


def test_the_summary_is_made_from_the_metrics_of_the_whole_run(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(
        0, {"eval/accuracy": 0.25, "eval/n": 8.0, "eval/accuracy/clock": 0.5, "seconds/evaluation": 1.5}
    )
    log.write(1, {"reward/mean": 0.1, "seconds/iteration": 2.0})
    after = {"eval/accuracy": 0.75, "eval/n": 8.0, "eval/accuracy/clock": 1.0, "eval/format": float("nan")}
    log.write(2, {"reward/mean": 0.2, "seconds/iteration": 3.0, **after, "seconds/evaluation": 1.0})
    summary = write_summary(tmp_path, 2, {"iteration": 2, "accuracy": 0.75})
    assert summary == {
        "accuracy": {"before": 0.25, "after": 0.75, "n": 8},
        "seconds": {"rl": 5.0, "eval": 2.5},
        "groups": {"clock": {"before": 0.5, "after": 1.0}},
        "other": {"format": {"before": None, "after": None}},
        "iterations": 2,
        "best": {"iteration": 2, "accuracy": 0.75},
    }
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_a_run_without_evaluation_has_a_summary_without_accuracy(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "metrics.jsonl").write(1, {"seconds/iteration": 2.0})
    summary = write_summary(tmp_path, 1, {"iteration": None, "accuracy": None})
    assert summary["accuracy"] == {"before": None, "after": None, "n": None}
