"""Metrics of a run: written, read back, and dropped on resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mm_cpgd.errors import UserError
from mm_cpgd.tracking import MetricsLog, read_metrics


def test_metrics_are_one_json_line_per_iteration(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.write(1, {"reward/mean": 0.5})
    log.write(2, {"reward/mean": 0.75})
    lines = log.path.read_text().splitlines()
    assert lines == ['{"iteration": 1, "reward/mean": 0.5}', '{"iteration": 2, "reward/mean": 0.75}']


def test_non_finite_values_become_null_and_scalars_become_numbers(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(
        1, {"a": float("nan"), "b": float("-inf"), "c": torch.tensor(2.5), "d": np.float32(0.5), "e": 3}
    )
    assert read_metrics(log.path) == [{"iteration": 1, "a": None, "b": None, "c": 2.5, "d": 0.5, "e": 3}]


def test_metrics_of_later_iterations_are_dropped_on_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for iteration in range(5):
        log.write(iteration, {"x": 0.1 * iteration})
    before = log.path.read_text()
    log.truncate_after(2)
    assert log.path.read_text() == "".join(line for line in before.splitlines(True)[:3])
    log.truncate_after(9)
    assert [row["iteration"] for row in read_metrics(log.path)] == [0, 1, 2]


def test_a_half_written_last_line_is_ignored_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2, "rew')
    assert read_metrics(path) == [{"iteration": 1}]
    MetricsLog(path).write(2, {})
    assert path.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_a_half_character_at_the_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n{"iteration": 2, "\xe6\x80')
    assert read_metrics(path) == [{"iteration": 1}]
    MetricsLog(path).truncate_after(1)
    assert path.read_text() == '{"iteration": 1}\n'


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"x": 1}', '{"iteration": "2"}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n' + line + '\n{"iteration": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)


def test_absent_metrics_are_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_file_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        MetricsLog(tmp_path / "runs" / "metrics.jsonl").write(1, {})
