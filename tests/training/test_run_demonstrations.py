"""Runs that learn solutions beside rollouts, in full: against runs without, with mixtures, sampled ahead."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mm_cpgd.errors import UserError
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
HPT = ["algorithm.recipe=hpt", "sft.target_template=<{answer}>", "data.eval=null"]


def assert_same_weights(one: Path, other: Path) -> None:
    found, expected = (load_file(folder / "final" / "model.safetensors") for folder in (one, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("demonstrations/")} for row in rows]


def test_a_threshold_below_zero_is_the_recipe_without_demonstrations(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    trainer_jobs.run(yaml, [*HPT, "algorithm.demonstrations.gamma=-1", f"output={tmp_path / 'one'}"])
    trainer_jobs.run(yaml, [*HPT, "algorithm.demonstrations=null", f"output={tmp_path / 'other'}"])
    found, expected = read_rows(tmp_path / "one"), read_rows(tmp_path / "other")
    assert {row["demonstrations/taught"] for row in found} == {0}
    assert without(found) == expected
    assert_same_weights(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("sizes", [(1, 10000), (150, 10000)])
def test_the_micro_batch_changes_no_metric(
    yaml: Path, tmp_path: Path, read_rows: Rows, sizes: tuple[int, int]
) -> None:
    gamma = ["algorithm.demonstrations.gamma=0.1", "training.iterations=2", "training.learning_rate=1e-5"]
    for size in sizes:
        overrides = [f"training.micro_batch_tokens={size}", f"output={tmp_path / str(size)}"]
        trainer_jobs.run(yaml, [*HPT, *gamma, *overrides])
    rows = [read_rows(tmp_path / str(size)) for size in sizes]
    assert any(0 < row["demonstrations/taught"] < 1 for row in rows[0])
    for found, expected in zip(*rows, strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_where_everything_is_taught_nothing_is_said_of_the_rollouts_ratios(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    trainer_jobs.run(yaml, [*HPT, "algorithm.demonstrations.gamma=1", "training.iterations=2"])
    for row in read_rows(tmp_path / "run"):
        assert row["demonstrations/taught"] == 1
        assert row["demonstrations/loss"] == pytest.approx(row["demonstrations/nll"])
        assert row["objective/loss"] == pytest.approx(row["demonstrations/loss"])
        assert not {name for name in row if name.startswith("policy/")}


def test_both_at_once_log_both(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    both = "algorithm.demonstrations={name: always, coefficient: 0.5}"
    trainer_jobs.run(yaml, [*HPT, both, "training.iterations=2"])
    for row in read_rows(tmp_path / "run"):
        assert row["demonstrations/loss"] == pytest.approx(0.5 * row["demonstrations/nll"], rel=1e-5)
        assert row["policy/ratio_min"] <= 1 <= row["policy/ratio_max"]


def test_batches_sampled_ahead_hold_their_solutions(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, [*HPT, "algorithm.demonstrations.gamma=0.1", "rollout.ahead=2"])
    rows = read_rows(tmp_path / "run")
    assert [row["rollout/staleness"] for row in rows] == [0, 1, 2]
    assert all("demonstrations/nll" in row for row in rows if row["demonstrations/taught"])
    assert any(row["demonstrations/taught"] for row in rows[1:])


def test_a_run_interrupted_between_two_steps_goes_on_with_the_same_solutions(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    gamma = [*HPT, "algorithm.demonstrations.gamma=0.1", "checkpoint.every=1", "checkpoint.keep=9"]
    trainer_jobs.run(yaml, [*gamma, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_child(yaml, gamma, stop_after_five_steps) == 128 + 15
    trainer_jobs.run(yaml, gamma, resume=True)
    assert read_rows(tmp_path / "run") == read_rows(tmp_path / "one")
    assert_same_weights(tmp_path / "run", tmp_path / "one")


def stop_after_five_steps() -> None:
    """Ask the run to stop after the first of the second iteration's four optimizer steps."""
    import os
    import signal

    from mm_cpgd.training.optimizer import OptimizerStep

    trainer_jobs.at_call(OptimizerStep, "__call__", 5, lambda: os.kill(os.getpid(), signal.SIGTERM))


def test_a_run_that_cannot_be_meant_ends_before_it_begins(yaml: Path, tmp_path: Path) -> None:
    chosen = "algorithm.selection=[{name: accuracy_filter}]"
    with pytest.raises(UserError, match=r"demonstrations: hpt does not go together with"):
        trainer_jobs.run(yaml, [*HPT, chosen])
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
