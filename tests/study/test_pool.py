"""Parallel runs whose process dies, that fail, or that end with a user error."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.study.pool import ATTEMPTS, run_all
from tests.fakes.study_pool import run_endless_study, serve

TRIALS = [Trial(method, Stress(1e-4, 1), seed) for seed in (1, 2) for method in ("pg", "cpgd")]


def jobs_of(folder: Path) -> list[str]:
    return sorted(file.name.split(".")[0] for file in folder.iterdir())


def test_every_trial_is_run_once_by_at_most_the_given_number_of_processes(tmp_path):
    assert run_all(TRIALS, tmp_path, ["seed=3"], 2, serve) == {}
    assert jobs_of(tmp_path) == sorted(trial.name for trial in TRIALS)
    assert len({file.name.split(".")[1] for file in tmp_path.iterdir()}) <= 2
    assert {file.read_text() for file in tmp_path.iterdir()} == {"1 seed=3"}
    assert multiprocessing.active_children() == []


def test_a_run_whose_process_died_is_repeated_by_another(tmp_path):
    done = []
    failed = run_all(TRIALS, tmp_path, [], 1, serve, ("pg",), lambda trial, failure: done.append(trial))
    assert failed == {}
    assert sorted(done, key=str) == sorted(TRIALS, key=str)
    assert jobs_of(tmp_path).count(TRIALS[0].name) == 2


def test_a_run_that_always_fails_is_reported_and_the_others_are_done(tmp_path):
    failed = run_all(TRIALS, tmp_path, [], 1, serve, ("", "cpgd"))
    assert {trial.method for trial in failed} == {"cpgd"}
    assert set(failed.values()) == {"a bug"}
    assert jobs_of(tmp_path).count(TRIALS[1].name) == ATTEMPTS
    assert TRIALS[2].name in jobs_of(tmp_path)


def test_a_user_error_ends_the_study_at_once(tmp_path):
    with pytest.raises(UserError, match="a wrong setting"):
        run_all(TRIALS, tmp_path, [], 1, serve, ("", "", "pg"))
    assert jobs_of(tmp_path) == [TRIALS[0].name]
    assert multiprocessing.active_children() == []


def test_processes_end_with_a_study_that_is_killed(tmp_path):
    study = multiprocessing.get_context("spawn").Process(target=run_endless_study, args=(tmp_path,))
    study.start()
    wait_until(lambda: any(tmp_path.iterdir()))
    study.kill()
    study.join()
    (worker,) = tmp_path.iterdir()
    wait_until(lambda: not is_running(int(worker.name)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
