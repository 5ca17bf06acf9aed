"""A user's mistake is one message on standard error, exit status 2 and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.cli.main import main

Complain = Callable[..., str]


@pytest.fixture
def complain(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Complain:
    """Run ``mm-cpgd``, expect exit status 2, and return the one message."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        assert caught.value.code == 2
        assert "Traceback" not in printed.err + printed.out
        assert printed.err.count("mm-cpgd: ") == 1
        return printed.err.split("mm-cpgd: ")[1]

    return run


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.learning_rat=1", ["learning_rat", "learning_rate"]),
        ("rollout.prompts=many", ["rollout.prompts", "many"]),
        ("training.iterations=0", ["training.iterations"]),
        ("algorithm.recipe=cpgdd", ["cpgdd", "'cpgd'"]),
        ("rewards=[{rule: accuracies}]", ["accuracies", "'accuracy'"]),
        ("rewards=[{rule: nowhere.py:mine}]", ["nowhere.py"]),
        ("rollout.completions=1", ["completions"]),
        ("data.train.path=missing.jsonl", ["missing.jsonl"]),
        ("policy.model=./no/such/model", ["policy.model", "./no/such/model"]),
        ("training.schedule=cosin", ["training.schedule", "cosine"]),
    ],
)
def test_a_mistake_in_a_config_is_one_message(
    complain: Complain, yaml: Path, override: str, says: list[str]
) -> None:
    message = complain("train", yaml, override)
    assert all(part in message for part in says), message


def test_a_config_that_does_not_exist_is_named(complain: Complain, tmp_path: Path) -> None:
    assert "nothing.yaml" in complain("train", tmp_path / "nothing.yaml")


def test_a_model_without_vision_is_refused(complain: Complain, yaml: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text-only"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    message = complain("train", yaml, f"policy.model={folder}")
    assert "'gpt2'" in message
    assert "vision-language model" in message


def test_an_empty_dataset_is_refused(complain: Complain, yaml: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    assert "empty.jsonl" in complain("train", yaml, f"data.train.path={file}")


def test_rows_of_which_none_can_be_used_are_refused_with_their_reasons(
    complain: Complain, yaml: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "How many?", "answer": ""}\n' * 3)
    message = complain("train", yaml, f"data.train.path={file}")
    assert "answer" in message
    assert (tmp_path / "run" / "quarantine.jsonl").read_text().count("\n") == 3


def test_rows_without_a_solution_are_unusable(complain: Complain, yaml: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "How many?", "answer": "3"}\n' * 3)
    assert "no solution to train on" in complain("sft", yaml, f"data.train.path={file}")


def test_a_folder_that_holds_a_run_is_not_used_silently(
    complain: Complain, yaml: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: old\n")
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    assert "--resume" in complain("train", yaml)


@pytest.mark.slow
def test_the_installed_command_says_the_same(yaml: Path) -> None:
    command = [sys.executable, "-m", "mm_cpgd", "train", str(yaml), "training.iteration=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("mm-cpgd: ")
    assert "iterations" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "option",
    [["--processes", "8"], ["--nodes", "2"], ["--gpu-memory", "80GiB"], ["--model-config", "x.json"]],
)
def test_what_only_a_plan_is_made_for_is_refused_for_a_run(
    complain: Complain, yaml: Path, option: list[str]
) -> None:
    assert f"{option[0]}: only with --dry-run" in complain("train", str(yaml), *option)


def test_a_size_that_is_none_is_one_message(complain: Complain, yaml: Path) -> None:
    text = complain("train", str(yaml), "--dry-run", "--gpu-memory", "plenty")
    assert "--gpu-memory 'plenty' is no size; write for instance 80GiB" in text


def test_a_plan_is_made_for_the_given_processes_and_memory(yaml: Path) -> None:
    options = ["distributed.strategy=fsdp2", "--dry-run", "--processes", "2", "--gpu-memory", "1GiB"]
    command = [sys.executable, "-m", "mm_cpgd", "train", str(yaml), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "2 processes, fsdp2" in done.stdout
    assert "of 1.0 GiB on each GPU" in " ".join(done.stdout.split())
