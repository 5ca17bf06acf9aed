"""Run folder: the folders that can be used, and the summary."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.tracking import MetricsLog
from mm_cpgd.training.run_folder import ExistingRun, prepare_run_folder, write_final, write_summary
from tests.fakes import training_runs as trainer_jobs


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


@pytest.mark.parametrize("content", ["my: project\n", "policy: {model: x}\ndata: {}\n", "[1]\n", "{", ""])
def test_a_config_of_something_else_is_no_run(tmp_path: Path, content: str) -> None:
    for name in ("final/thesis.tex", "checkpoints/theirs.bin", "config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    for start in (ExistingRun(overwrite=True), ExistingRun(resume=True), ExistingRun()):
        with pytest.raises(UserError, match="holds no run of mm-cpgd; choose another output"):
            prepare_run_folder(tmp_path, start)
    assert len([one for one in tmp_path.rglob("*") if one.is_file()]) == 3


@pytest.mark.parametrize(
    "name",
    ["final/thesis.tex", "final/adapter/notes.md", "checkpoints/theirs.bin", "rollouts/notes.md"],
)
def test_overwrite_removes_nothing_if_a_folder_holds_what_no_run_has_written(run: Path, name: str) -> None:
    (run / "metrics.jsonl").write_text("{}")
    (run / name).parent.mkdir(exist_ok=True, parents=True)
    (run / name).write_text("mine")
    with pytest.raises(UserError, match=f"would remove what no run has written: .*{name}"):
        prepare_run_folder(run, ExistingRun(overwrite=True))
    assert (run / "metrics.jsonl").exists()
    assert (run / name).read_text() == "mine"


@pytest.mark.parametrize("more", [[], ["policy.lora={rank: 2}"]], ids=["all weights", "adapters"])
def test_overwrite_knows_every_file_of_a_run(yaml: Path, tmp_path: Path, more: list[str]) -> None:
    trainer_jobs.run(yaml, ["training.iterations=1", "guard.action=rollback", *more], report=True)
    prepare_run_folder(tmp_path / "run", ExistingRun(overwrite=True))
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/run", "file/deep/run"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: .*/file is a file, not a folder; choose another output"):
        prepare_run_folder(tmp_path / name, ExistingRun())


def test_final_is_complete_or_absent(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("new")

    with pytest.raises(UserError, match="final cannot be written: No space left"):
        write_final(tmp_path, fail)
    assert list(tmp_path.iterdir()) == []
    write_final(tmp_path, save)
    with pytest.raises(UserError, match="No space left"):
        write_final(tmp_path, fail)
    assert (tmp_path / "final" / "config.json").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_a_config_that_does_not_fit_on_the_disk_leaves_no_half_of_it(
    yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.write_text

    def full(self: Path, text: str, **options: Any) -> int:
        if "config.yaml" in self.name:
            plain(self, text[:100], **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match=r"config\.yaml cannot be written: No space left"):
            trainer_jobs.run(yaml, ["data.eval=null", "training.iterations=1"])
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["quarantine.jsonl"]
    trainer_jobs.run(yaml, ["data.eval=null", "training.iterations=1"])


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
