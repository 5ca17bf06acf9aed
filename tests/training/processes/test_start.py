"""Processes start together or not at all, and say why not."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore
from torch.distributed.elastic.utils.distributed import get_free_port

from mm_cpgd.config.loading import load_config
from mm_cpgd.errors import UserError
from mm_cpgd.training.processes.start import (
    Limit,
    Report,
    _judge,
    check_device,
    is_launched,
    start_together,
    verdict,
)
from tests.fakes import training_runs as jobs
from tests.fakes.training_runs import OnRank

LAUNCH = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _on_cpu(on_cpu: None) -> None:
    pass


def report(rank: int, problem: str | None = None, **facts: Any) -> Report:
    return Report(rank, f"gpu-{rank}", problem, facts)


def test_equal_reports_are_no_problem() -> None:
    assert verdict([report(0, seed=1), report(1, seed=1), report(2, seed=1)]) is None


def test_the_problem_of_the_lowest_rank_is_told_with_its_machine() -> None:
    found = verdict([report(0, seed=1), report(1, "no GPU"), report(2, "no data")])
    assert found == "process 1 on gpu-1: no GPU"


def test_a_problem_that_all_have_is_told_as_by_one_process() -> None:
    assert verdict([report(0, "a typo"), report(1, "a typo")]) == "a typo"


def test_a_difference_is_told_with_both_values() -> None:
    found = verdict([report(0, seed=1, device="GPU"), report(1, seed=1, device="CPU")])
    assert found is not None
    assert "process 1 on gpu-1 is about to run something else than process 0 on gpu-0" in found
    assert "device is 'CPU' instead of 'GPU'" in found


def test_of_many_differences_some_are_told_and_the_others_counted() -> None:
    names = [f"key{number}" for number in range(9)]
    found = verdict([report(0, **dict.fromkeys(names, 1)), report(1, **dict.fromkeys(names, 2))])
    assert found is not None
    assert "key3 is 2 instead of 1, and 5 more" in found


@pytest.mark.parametrize("absent", sorted(LAUNCH))
def test_without_a_complete_launch_there_is_nobody_to_wait_for(absent: str) -> None:
    assert is_launched(LAUNCH)
    assert not is_launched({**LAUNCH, absent: ""})
    assert not is_launched({**LAUNCH, "WORLD_SIZE": "1"})


def test_one_process_raises_its_own_problem(yaml: Path) -> None:
    def fail() -> None:
        raise UserError("no such rule")

    with pytest.raises(UserError, match=r"^no such rule$"):
        start_together(load_config(yaml), "train", fail)


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device({"LOCAL_RANK": "1"})
    check_device({"LOCAL_RANK": "7", "ACCELERATE_USE_CPU": "true"})
    with pytest.raises(UserError, match=r"^LOCAL_RANK=2, and torch sees 2 GPUs here .*as many processes"):
        check_device({"LOCAL_RANK": "2"})


def lose_a_gpu() -> None:
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    os.environ["ACCELERATE_USE_CPU"] = "false"


def test_a_missing_gpu_of_one_process_ends_both_with_its_message(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_two_processes(yaml, (), OnRank(1, lose_a_gpu)) == [2, 2]
    said = (tmp_path / "stderr-0").read_text()
    assert "mm-cpgd: process 1 on " in said
    assert "LOCAL_RANK=1, and torch sees 1 GPUs here" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_config_that_one_process_cannot_read_ends_both(yaml: Path, tmp_path: Path, rank: int) -> None:
    overrides: list[list[str]] = [[], []]
    overrides[rank] = ["training.iterations=none"]
    assert jobs.in_each_process(overrides, yaml) == [2, 2]
    said = (tmp_path / "stderr-0").read_text()
    assert f"mm-cpgd: process {rank} on " in said
    assert "training.iterations" in said
    assert "Traceback" not in said + (tmp_path / "stderr-1").read_text()


def test_another_config_on_one_process_ends_both(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_each_process([[], ["training.learning_rate=0.5"]], yaml) == [2, 2]
    said = (tmp_path / "stderr-0").read_text()
    assert "training.learning_rate is 0.5 instead of 0.001" in said
    assert not (tmp_path / "run").exists()


def change_the_rules() -> None:
    from mm_cpgd.training.processes import start

    start.file_digests = lambda config: {"/rules.py": os.environ["RANK"]}


def test_another_version_of_the_rules_on_one_process_ends_both(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_two_processes(yaml, (), change_the_rules) == [2, 2]
    assert "the content of /rules.py is '1' instead of '0'" in (tmp_path / "stderr-0").read_text()


def test_a_process_that_does_not_report_is_named() -> None:
    board = HashStore()
    for rank in (0, 2):
        board.set(f"report/{rank}", json.dumps(dataclasses.asdict(report(rank))))
    message = _judge(board, 3, Limit(0.2, "0.2 s (distributed.timeout)"))
    assert message is not None
    assert message.startswith("process 1 of 3 did not start within 0.2 s (distributed.timeout)")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_waits_in_vain_says_for_how_long(
    yaml: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    for name, value in {**LAUNCH, "RANK": rank, "MASTER_PORT": str(get_free_port())}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"^process {rank} on .* has not met .* 127\.0\.0\.1:\d+ .* 1 s"):
        start_together(load_config(yaml, ["distributed.timeout=1"]), "train", lambda: None)


def load_slowly() -> None:
    from mm_cpgd.training import placement

    original = placement.load_policy

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(30)
        return original(*args, **options)

    placement.load_policy = slow


@pytest.mark.slow
def test_a_process_that_loads_slowly_is_waited_for(yaml: Path, tmp_path: Path) -> None:
    assert jobs.in_two_processes(yaml, ["training.iterations=1"], OnRank(1, load_slowly)) == [0, 0]


@pytest.mark.slow
def test_a_process_that_is_slower_than_the_timeout_ends_both_with_one_message(
    yaml: Path, tmp_path: Path
) -> None:
    codes = jobs.in_two_processes(yaml, ["distributed.timeout=8"], OnRank(1, load_slowly))
    assert codes == [1, 1]
    said = (tmp_path / "stderr-0").read_text()
    assert "waited 8 s (distributed.timeout) for another process" in said
    assert "Traceback" not in said + (tmp_path / "stderr-1").read_text()


def lose_the_model() -> None:
    from mm_cpgd.errors import UserError
    from mm_cpgd.training import placement

    def none(*args: Any, **options: Any) -> Any:
        raise UserError("/models/policy is no folder")

    placement.load_policy = none


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]])
def test_a_model_that_is_missing_on_some_machine_ends_both_processes(
    yaml: Path, tmp_path: Path, ranks: list[int]
) -> None:
    assert jobs.in_two_processes(yaml, (), OnRank(ranks[0], lose_the_model, *ranks)) == [2, 2]
    said = (tmp_path / "stderr-0").read_text()
    assert "/models/policy is no folder" in said
    assert "Traceback" not in said + (tmp_path / "stderr-1").read_text()
