"""Steps of environments: in order, several at a time, and none longer than its limit."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.conversations.stepping import StepFailed, StepPool, run_steps
from rewards import Status
from tests.paths import ROOT


def fail() -> int:
    raise ZeroDivisionError("by nothing\nand more")


PLACE = f"(test_stepping.py, line {fail.__code__.co_firstlineno + 1})"


def test_results_come_in_the_order_of_the_tasks() -> None:
    delays = [0.05, 0.0, 0.02, 0.01]

    def make(place: int) -> int:
        time.sleep(delays[place])
        return place

    tasks = [lambda place=place: make(place) for place in range(4)]
    assert run_steps(tasks, seconds=10, threads=3) == [0, 1, 2, 3]
    assert run_steps([], seconds=10, threads=3) == []


def test_one_that_raises_or_ends_the_interpreter_fails_alone() -> None:
    found = run_steps([lambda: 1, fail, lambda: sys.exit(3), lambda: 4], seconds=10, threads=2)
    assert found[0] == 1
    assert found[1] == StepFailed(Status.ERROR, f"ZeroDivisionError: by nothing {PLACE}")
    assert isinstance(found[2], StepFailed)
    assert found[3] == 4


def test_one_that_hangs_times_out_and_the_others_go_on() -> None:
    release = threading.Event()
    tasks = [release.wait, lambda: True, release.wait, lambda: True]
    started = time.monotonic()
    found = run_steps(tasks, seconds=0.2, threads=1)
    release.set()
    assert found == [StepFailed(Status.TIMEOUT, "no reply within 0.2 seconds"), True] * 2
    assert time.monotonic() - started < 5


def test_results_are_handed_out_as_they_come_and_later_tasks_join() -> None:
    pool: StepPool[int] = StepPool(seconds=10, threads=2)
    gate = threading.Event()
    pool.submit(7, lambda: 1 if gate.wait(10) else 0)
    pool.submit(8, lambda: 2)
    assert pool.poll(wait=True) == [(8, 2)]
    assert pool.poll(wait=False) == []
    pool.submit(9, fail)
    assert pool.poll(wait=True) == [(9, StepFailed(Status.ERROR, f"ZeroDivisionError: by nothing {PLACE}"))]
    assert pool.busy
    gate.set()
    assert pool.poll(wait=True) == [(7, 1)]
    assert not pool.busy
    assert pool.poll(wait=True) == []


def test_no_more_run_at_a_time_than_allowed() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work() -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return True

    assert all(run_steps([work] * 9, seconds=10, threads=3))
    assert 1 < most <= 3


def test_a_broken_protocol_is_the_users_to_fix() -> None:
    def broken() -> int:
        raise UserError("environment 'x' returned 3")

    with pytest.raises(UserError, match="'x' returned 3"):
        run_steps([broken], seconds=10, threads=1)


def test_a_hanging_step_does_not_keep_the_process_from_ending() -> None:
    code = (
        "import time; from mm_cpgd.rollout.conversations.stepping import run_steps;"
        "print(run_steps([lambda: time.sleep(600)], seconds=0.1, threads=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0
    assert "no reply" in done.stdout
