"""The SLURM scripts, run on this machine by stand-ins for SLURM's commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

from mm_cpgd.config.loading import load_config
from tests.fakes.slurm import write_commands, write_executable
from tests.paths import ROOT

SCRIPTS = ROOT / "examples" / "scale"
# A program in place of python and vllm: notes its arguments, and ends as it is told.
NOTE = """\
#!{python}
import json, os, signal, sys, time
keys = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "FAKE_NODE", "CUDA_VISIBLE_DEVICES")
note = {{"arguments": sys.argv[1:], **{{key: os.environ.get(key) for key in keys}}}}
with open("{notes}", "a") as file:
    file.write(json.dumps(note) + "\\n")
{end}
"""
UNTIL_TERM = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(60)"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM on this machine; return its folder, with ``log``, a line for each call of srun."""
    write_commands(tmp_path / "slurm")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text(f'PATH="{tmp_path / "venv" / "bin"}:$PATH"\n')
    settings = {
        "PATH": f"{tmp_path / 'slurm'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FAKE_LOG": str(tmp_path / "log"),
        "FAKE_NODES": "127.0.0.1",
        "SLURM_JOB_ID": str(get_free_port() - 20000),
        "SLURM_JOB_NODELIST": "gpu[1-4]",
        "SLURM_NTASKS": "2",
        "VENV": str(tmp_path / "venv"),
        "OUTPUT": str(tmp_path / "run"),
        "OPTIONS": "distributed.strategy=fsdp2 checkpoint.every=1",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def start(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPTS / name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def note(file: Path, notes: Path, end: str = "") -> None:
    write_executable(file, NOTE.format(python=sys.executable, notes=notes, end=end))


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_correct_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
def test_two_tasks_train_together_and_a_finished_run_is_not_put_back_into_the_queue(
    slurm: Path, make_yaml: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n'
    write_executable(slurm / "venv" / "bin" / "python", real)
    monkeypatch.setenv("CONFIG", str(make_yaml(slurm)))
    job = start("slurm.sh")
    said, _ = job.communicate(timeout=200)
    assert job.returncode == 0, said
    assert len((slurm / "run" / "metrics.jsonl").read_text().splitlines()) == 4
    (step,) = read(slurm / "log")
    assert step["options"]["kill_on_bad_exit"] == "1"
    assert not (slurm / "log.scontrol").exists()


@pytest.mark.slow
def test_a_job_out_of_time_is_put_back_into_the_queue(slurm: Path) -> None:
    note(slurm / "venv" / "bin" / "python", slurm / "notes", UNTIL_TERM)
    job = start("slurm.sh")
    wait_for(slurm / "notes", lines=2)
    for task in step_of(job):  # SLURM signals the steps
        os.kill(task, signal.SIGTERM)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    job_id = os.environ["SLURM_JOB_ID"]
    assert (slurm / "log.scontrol").read_text() == f"requeue {job_id}\n"


def test_training_and_servers_get_machines_of_their_own(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers, trainers = slurm / "servers", slurm / "trainers"
    note(slurm / "venv" / "bin" / "vllm", servers, UNTIL_TERM)
    note(slurm / "venv" / "bin" / "python", trainers, UNTIL_TERM)
    monkeypatch.setenv("FAKE_NODES", "gpu1,gpu2,gpu3,gpu4")
    for name, value in {"SLURM_NTASKS_PER_NODE": "4", "TENSOR_PARALLEL": "2", "SAMPLING_NODES": "2"}.items():
        monkeypatch.setenv(name, value)
    job = start("slurm_sampling_nodes.sh")
    wait_for(servers, lines=4)
    wait_for(trainers, lines=8)
    job.send_signal(signal.SIGTERM)  # SLURM signals the script
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    assert "requeue" in (slurm / "log.scontrol").read_text()

    found = {(one["FAKE_NODE"], one["arguments"][3], one["CUDA_VISIBLE_DEVICES"]) for one in read(servers)}
    assert found == {
        (node, *rest) for node in ("gpu1", "gpu2") for rest in (("8000", "0,1"), ("8001", "2,3"))
    }
    assert all(one["arguments"][4:6] == ["--tensor-parallel-size", "2"] for one in read(servers))
    runs = sorted(read(trainers), key=lambda one: int(one["RANK"]))
    assert [one["RANK"] for one in runs] == [str(rank) for rank in range(8)]
    assert [one["FAKE_NODE"] for one in runs] == ["gpu3"] * 4 + ["gpu4"] * 4
    assert {(one["WORLD_SIZE"], one["MASTER_ADDR"]) for one in runs} == {("8", "gpu3")}


def test_the_settings_of_separate_machines_are_those_of_the_schema(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(slurm / "venv" / "bin" / "vllm", slurm / "servers", UNTIL_TERM)
    note(slurm / "venv" / "bin" / "python", slurm / "trainers")
    monkeypatch.setenv("FAKE_NODES", "gpu1,gpu2")
    for name, value in {"SLURM_NTASKS_PER_NODE": "2", "SAMPLING_NODES": "1"}.items():
        monkeypatch.setenv(name, value)
    job = start("slurm_sampling_nodes.sh")
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0, said
    arguments = read(slurm / "trainers")[0]["arguments"]
    assert arguments[:3] == ["-m", "mm_cpgd", "train"]
    assert arguments[-1] == "--resume"
    config = load_config(ROOT / arguments[3], arguments[4:-1])
    assert config.rollout.engine == "vllm"
    assert config.rollout.vllm.urls == ["http://gpu1:8000", "http://gpu1:8001"]
    assert config.rollout.vllm.weights == "folder"
    assert config.distributed.strategy == "fsdp2"


def wait_for(file: Path, lines: int) -> None:
    end = time.monotonic() + 60
    while not file.exists() or len(file.read_text().splitlines()) < lines:
        assert time.monotonic() < end, f"{file} has no {lines} lines"
        time.sleep(0.1)
    time.sleep(0.5)  # until the programs wait for the signal


def step_of(job: subprocess.Popen[str]) -> list[int]:
    """Return the number of the job's ``srun``."""
    return [int(pid) for pid in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()]
