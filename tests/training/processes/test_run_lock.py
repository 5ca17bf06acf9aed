"""Lock of a run folder: one holder, taken over only from one that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.training.processes import run_lock
from mm_cpgd.training.processes.run_lock import EXPIRY, LOCK, RunLock
from tests.fakes import training_runs as trainer_jobs

HOLD = """
import sys, time
from pathlib import Path
from mm_cpgd.training.processes.run_lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    with pytest.raises(UserError, match=f"another run: process {os.getpid()} on .* remove .*{LOCK}"):
        RunLock(tmp_path).acquire()
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    RunLock(tmp_path).acquire()


def test_another_process_holds_it_as_long_as_it_lives(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(UserError, match=f"process {other.pid} on "):
        RunLock(tmp_path).acquire()
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK).exists()
    RunLock(tmp_path).acquire()


def written(folder: Path, **changes: Any) -> Path:
    (folder / LOCK).write_text(json.dumps({**run_lock._holder(), **changes}))
    return folder / LOCK


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    own = run_lock._holder()["process"]
    written(tmp_path, process=own.rpartition("/")[0] + "/1")
    RunLock(tmp_path).acquire()


def test_a_holder_on_another_host_counts_until_it_stops_renewing(tmp_path: Path) -> None:
    file = written(tmp_path, host="node-7", pid=1)
    with pytest.raises(UserError, match="process 1 on node-7 since 20"):
        RunLock(tmp_path).acquire()
    past = time.time() - EXPIRY - 5
    os.utime(file, (past, past))
    RunLock(tmp_path).acquire()
    assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_job_that_slurm_has_started_again_takes_the_lock_of_its_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for other in (None, ["41", "0"], ["42", "1"]):
        written(tmp_path, host="node-7", job=other)
        with pytest.raises(UserError, match="on node-7"):
            RunLock(tmp_path).acquire()
    written(tmp_path, host="node-7", job=["42", "0"])
    RunLock(tmp_path).acquire()


def test_a_holder_in_another_container_is_not_looked_up_by_its_number(tmp_path: Path) -> None:
    written(tmp_path, pid=999_999, process="pid:[1]/5")
    with pytest.raises(UserError, match="process 999999"):
        RunLock(tmp_path).acquire()


def test_the_holder_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RENEWAL", 0.05)
    lock = RunLock(tmp_path)
    lock.acquire()
    past = time.time() - EXPIRY
    os.utime(lock.file, (past, past))
    deadline = time.monotonic() + 10
    while lock.file.stat().st_mtime < past + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lock.file.stat().st_mtime > past + 1
    lock.release()


def test_a_lock_that_was_taken_over_is_not_removed_by_its_former_holder(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    file = written(tmp_path, pid=1)
    lock.release()
    assert file.exists()


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}, {}])
def test_a_run_is_refused_where_another_is_running(
    yaml: Path, tmp_path: Path, options: dict[str, bool]
) -> None:
    if options:
        trainer_jobs.run(yaml, ["data.eval=null", "training.iterations=1"])
    (tmp_path / "run").mkdir(exist_ok=True)
    written(tmp_path / "run", host="node-7")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="in use by another run"):
        trainer_jobs.run(yaml, ["data.eval=null"], **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_of_several_processes_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    code = HOLD.replace("time.sleep(60)", "time.sleep(5)")
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in starts].count(b"held\n") == 1


def test_runs_after_one_another_in_one_process_leave_no_lock(yaml: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        trainer_jobs.run(yaml, ["data.eval=null", f"training.iterations={number}"], resume=True)
        assert not (tmp_path / "run" / LOCK).exists()
    with pytest.raises((UserError, ValueError)):
        trainer_jobs.run(yaml, ["data.train.path=gone.jsonl"], overwrite=True)
    assert not (tmp_path / "run" / LOCK).exists()
