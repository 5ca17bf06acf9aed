"""Worker processes: killed in time, replaced, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.workers.pool import OutOfTime, Pool, PoolError, shared_pool

# The factorial leaves the comparison to sympy, which expands the powers.
HARD = ("n!(x+y+z+w+1)^{90}(x+1)", "n!((x+y+z+w+1)^{90}x+(x+y+z+w+1)^{90})")
ROOT = Path(__file__).parents[3]
EASY = (r"\sin 2x", r"2\sin x\cos x")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(size=2)
    yield made
    made.close()


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(_alive, pids))


def _pids(pool: Pool) -> list[int]:
    return [worker.process.pid for worker in pool._all]


def test_a_comparison_that_takes_too_long_is_ended_in_time_and_the_next_is_answered(pool: Pool) -> None:
    assert pool.equal(*EASY, limit=5)
    started = time.monotonic()
    with pytest.raises(OutOfTime, match=r"within 0\.3 s"):
        pool.equal(*HARD, limit=0.3)
    assert time.monotonic() - started < 0.3 + 0.5
    assert pool.equal(*EASY, limit=5)


def test_a_worker_that_is_killed_from_outside_is_replaced_without_an_error(pool: Pool) -> None:
    assert pool.equal(*EASY, limit=5)
    pids = _pids(pool)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert _gone(pids, within=1)
    assert pool.equal(*EASY, limit=5)


def test_many_threads_share_a_small_pool(pool: Pool) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(pool.equal(*EASY, limit=5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8
    assert len(_pids(pool)) <= pool.size + 1


def test_a_worker_without_memory_reports_it_and_is_replaced() -> None:
    pool = Pool(size=1, memory=220 << 20)
    try:
        with pytest.raises(OutOfTime, match="memory"):
            pool.equal("n!(x+y+z+w+v+1)^{60}(x+1)", "n!((x+y+z+w+v+1)^{60}x+(x+y+z+w+v+1)^{60})", limit=20)
        assert pool.equal(*EASY, limit=5)
    finally:
        pool.close()


def test_closing_leaves_no_process_behind() -> None:
    pool = Pool(size=1)
    assert pool.equal(*EASY, limit=5)
    pids = _pids(pool)
    pool.close()
    assert _gone(pids, within=1)


def test_a_forked_child_has_workers_of_its_own() -> None:
    code = """
import os, rewards
from rewards.workers.pool import shared_pool
easy = (r"\\sin 2x", r"2\\sin x\\cos x")
assert rewards.equivalent(*easy)
before = {w.process.pid for w in shared_pool()._all}
child = os.fork()
assert rewards.equivalent(*easy)
if child == 0:
    mine = {w.process.pid for w in shared_pool()._all}
    os._exit(0 if mine and not mine & before else 3)
assert os.waitpid(child, 0)[1] == 0
assert {w.process.pid for w in shared_pool()._all} == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


_BUSY_PARENT = """
import sys, threading, time, rewards
from rewards.workers.pool import shared_pool
assert rewards.equivalent(r"\\sin 2x", r"2\\sin x\\cos x")
threading.Thread(target=lambda: rewards.equivalent({hard[0]!r}, {hard[1]!r}, timeout=1.0)).start()
time.sleep(0.2)
print(*[w.process.pid for w in shared_pool()._all], flush=True)
{end}
"""


def _workers_of(end: str) -> tuple[subprocess.Popen[str], list[int]]:
    code = _BUSY_PARENT.format(hard=HARD, end=end)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def test_no_worker_outlives_a_parent_that_is_killed_even_while_it_computes() -> None:
    parent, pids = _workers_of("time.sleep(60)")
    parent.kill()
    parent.wait()
    assert pids
    assert _gone(pids, within=4)


def test_no_worker_outlives_its_parent_though_a_forked_child_lives_on() -> None:
    parent, pids = _workers_of(
        "import os; child = os.fork(); child and print(child, flush=True); time.sleep(60)"
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert child > 1  # 0 would be this process's own group
    parent.kill()
    parent.wait()
    try:
        assert _gone(pids, within=4)
        assert _alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_no_worker_outlives_a_parent_that_ends() -> None:
    parent, pids = _workers_of("")
    assert parent.wait(timeout=30) == 0
    assert pids
    assert _gone(pids, within=2)


def test_a_fork_while_another_thread_sends_a_request_never_blocks_the_child() -> None:
    asking = threading.Thread(target=lambda: [shared_pool().equal(*EASY, 5.0) for _ in range(200)])
    shared_pool().equal(*EASY, 5.0)
    asking.start()
    children = []
    while asking.is_alive() and len(children) < 40:
        child = os.fork()
        if child == 0:
            os._exit(0)  # the pool's own hook has run by now
        children.append(child)
    asking.join()
    deadline = time.monotonic() + 5
    stuck = [child for child in children if not _ended(child, deadline)]
    for child in stuck:
        os.kill(child, signal.SIGKILL)
    assert not stuck


def _ended(child: int, deadline: float) -> bool:
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_sympy_that_is_broken_stops_the_scoring_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sympy.py").write_text("raise ImportError('half installed')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    broken = Pool(size=1)
    try:
        with pytest.raises(PoolError, match=r"sympy does not work in .*half installed.*reinstall"):
            broken.equal(*EASY, limit=5)
    finally:
        broken.close()


def test_importing_the_package_starts_no_worker_and_warming_up_starts_two() -> None:
    code = (
        "import rewards; from rewards.workers.pool import shared_pool as p; "
        "a = len(p()._all); p().warm_up(); print(a, len(p()._all))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == ["0", "2"]
