"""The watch ends a process whose partner is gone, and nothing else."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import training_runs as jobs
from tests.fakes.training_runs import OnRank


@pytest.fixture(autouse=True)
def _on_cpu(on_cpu: None) -> None:
    pass


def wait_long() -> None:
    """Let the main process be in a rollout of an hour, the other die meanwhile."""
    import os

    from mm_cpgd.rollout import GroupsInParts
    from mm_cpgd.training.processes import watch

    watch.GRACE = 1.0
    action = jobs.die if os.environ["RANK"] == "1" else lambda: time.sleep(3600)
    jobs.at_call(GroupsInParts, "take", 2, action)


def test_a_process_in_a_long_rollout_ends_soon_after_its_partner(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_two_processes(yaml, ["data.eval=null"], wait_long) == [1, -signal.SIGKILL]
    said = (tmp_path / "stderr-0").read_text()
    assert "mm-cpgd: process 1 on " in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "run.lock").exists()


def wait_long_on_the_other() -> None:
    import os

    from mm_cpgd.rollout import GroupsInParts
    from mm_cpgd.training.processes import watch

    watch.GRACE = 1.0
    action = jobs.die if os.environ["RANK"] == "0" else lambda: time.sleep(3600)
    jobs.at_call(GroupsInParts, "take", 2, action)


def test_the_others_are_told_of_each_other_by_the_main_process(yaml: Path, tmp_path: Path) -> None:
    options = ["data.eval=null", "rollout.prompts=6", "training.mini_batch_prompts=3"]
    codes = jobs.in_each_process([options] * 3, yaml, OnRank(2, fail))
    assert codes[:2] == [1, 1]
    assert codes[2] not in (0, 2)
    assert "mm-cpgd: process 2 on " in (tmp_path / "stderr-0").read_text()
    # The main process is there to say it.
    assert "mm-cpgd:" not in (tmp_path / "stderr-1").read_text()
    assert "RuntimeError: a bug" in (tmp_path / "stderr-2").read_text()


def fail() -> None:
    from mm_cpgd.rollout import GroupsInParts

    def bug(*args: Any) -> None:
        raise RuntimeError("a bug")

    jobs.at_call(GroupsInParts, "take", 2, bug)


def test_without_the_main_process_the_others_say_it(yaml: Path, tmp_path: Path) -> None:
    codes = jobs.in_two_processes(yaml, ["data.eval=null"], wait_long_on_the_other)
    assert codes == [-signal.SIGKILL, 1]
    assert "mm-cpgd: process 0 on " in (tmp_path / "stderr-1").read_text()


def be_unreachable() -> None:
    from mm_cpgd.training.processes import watch

    watch._addresses = lambda: []


def test_a_main_process_that_is_not_reachable_is_said_and_the_run_goes_on(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_two_processes(yaml, ["data.eval=null", "training.iterations=1"], be_unreachable) == [0, 0]
    said = " ".join((tmp_path / "stderr-0").read_text().split())
    assert "warning: process 0 is not reachable from 1 on port" in said
