"""Runs with a guard: they roll back, continue with smaller steps, stop, and resume with equal decisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mm_cpgd.errors import RunEnded
from mm_cpgd.guard.signals import CollapseSignal
from mm_cpgd.guard.trend_tests import Above
from mm_cpgd.training.optimizer import Diverged, OptimizerStep
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
QUICK = ("data.eval=null", "training.inner_epochs=1")
ROLLBACK = (*QUICK, "guard.action=rollback", "guard.settle=0")
# Two rows in a row raise an alarm, whatever their values.
ALWAYS = (CollapseSignal("always", Above("tokens/sampled", 1, over=2), "a test", "nothing", actionable=True),)


def alarm_in_every_second_iteration() -> None:
    """Patch the signals in this process, also when called in another one."""
    import mm_cpgd.guard.signals

    mm_cpgd.guard.signals.SIGNALS = ALWAYS


@pytest.fixture(autouse=True)
def _on_cpu(on_cpu: None) -> None:
    pass


@pytest.fixture(autouse=True)
def _alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_cpgd.guard.signals.SIGNALS", ALWAYS)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def test_a_rollback_restores_the_policy_of_the_trusted_snapshot(yaml: Path, wordy_folder: Path) -> None:
    _, output = trainer_jobs.run(yaml, [*ROLLBACK, "guard.target_drift=0", "training.iterations=2"])
    start = load_file(wordy_folder / "model.safetensors")
    assert all(torch.equal(value, start[name]) for name, value in weights(yaml.parent / "run").items())
    assert "guard: iteration 2: always: tokens/sampled" in output
    assert (
        "guard: rolled back to the policy after iteration 0, learning rates × 0.1 (rollback 1 of 3)" in output
    )


def test_after_a_rollback_the_run_continues_with_a_smaller_step_and_other_prompts(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    options = ["training.iterations=4", "guard.alpha_factor=2", "training.schedule=linear"]
    trainer_jobs.run(yaml, [*ROLLBACK, *options])
    rows = read_rows(tmp_path / "run")
    # An iteration's drift was far above the target, so the factor is below step_factor.
    scale = rows[1]["guard/step_scale"]
    assert scale == pytest.approx(max(row["policy/drift"] for row in rows[:2]) ** -0.5 * 0.001**0.5)
    assert scale < 0.1
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert rows[1]["guard/rolled_back_to"] == 0
    # Two steps per iteration, eight in all; the mean of an iteration's two.
    rates = [1e-3 * (1 - done / 8) for done in (0.5, 2.5, 4.5, 6.5)]
    expected = [rates[0], rates[1], scale * rates[2], scale * rates[3]]
    assert [row["optimizer/learning_rate"] for row in rows] == pytest.approx(expected)
    first, third = ((tmp_path / "run" / "rollouts" / f"iteration-00000{i}.jsonl").read_text() for i in (1, 3))
    assert first != third


@pytest.mark.parametrize("copies", ["memory", "disk"])
def test_a_resumed_run_makes_the_decisions_of_the_uninterrupted_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, copies: str
) -> None:
    options = [*ROLLBACK, f"guard.copies={copies}", "guard.alpha_factor=2", "guard.copy_every=2"]
    for iterations in (1, 3, 5):
        trainer_jobs.run(yaml, [*options, f"training.iterations={iterations}"], resume=iterations > 1)
    straight = tmp_path / "straight"
    trainer_jobs.run(yaml, [*options, "training.iterations=5", f"output={straight}"])
    rows = read_rows(straight)
    assert sum("guard/rolled_back_to" in row for row in rows) == 2
    assert read_rows(tmp_path / "run") == rows
    expected = weights(straight)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run").items())
    assert not list(tmp_path.glob("*/guard/*.safetensors"))


def test_stop_ends_the_run_with_a_checkpoint_that_can_be_resumed(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    options = [*QUICK, "guard.action=stop", "checkpoint.every=0"]
    with pytest.raises(RunEnded, match=r"iteration 2: always.*the run is stopped; its checkpoint is in"):
        trainer_jobs.run(yaml, options)
    assert [place.name for place in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-2"]
    _, output = trainer_jobs.run(yaml, options, resume=True)
    assert "resumed after iteration 2 of 3" in output
    assert [row["iteration"] for row in read_rows(tmp_path / "run")] == [1, 2, 3]


def test_a_run_without_rollbacks_left_stops(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    options = [*ROLLBACK, "guard.max_rollbacks=1", "training.iterations=9"]
    with pytest.raises(RunEnded, match="iteration 4"):
        trainer_jobs.run(yaml, options)
    assert [row.get("guard/rolled_back_to") for row in read_rows(tmp_path / "run")] == [None, 0, None, None]


def test_a_run_that_diverges_rolls_back_instead_of_ending(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mm_cpgd.guard import SIGNALS

    def diverge() -> None:
        raise Diverged("not finite")

    monkeypatch.setattr("mm_cpgd.guard.signals.SIGNALS", SIGNALS)
    monkeypatch.setattr(OptimizerStep, "__call__", OptimizerStep.__call__)  # undone at the end
    trainer_jobs.at_call(OptimizerStep, "__call__", 4, diverge)
    trainer_jobs.run(yaml, [*ROLLBACK, "training.iterations=3"])
    rows = read_rows(tmp_path / "run")
    assert [row.get("guard/diverged") for row in rows] == [None, 1.0, None]
    assert rows[1]["guard/rolled_back_to"] in (0, 1)


def test_the_best_checkpoint_is_never_one_whose_policy_was_rolled_back(yaml: Path) -> None:
    options = ["guard.action=rollback", "evaluation.every=1", "training.iterations=2"]
    summary, _ = trainer_jobs.run(yaml, [*options, "training.inner_epochs=1"])
    assert summary["best"]["iteration"] != 2


def test_a_warning_does_not_change_the_run(yaml: Path, tmp_path: Path) -> None:
    for action in ("warn", "off"):
        trainer_jobs.run(yaml, [*QUICK, f"guard.action={action}", f"output={tmp_path / action}"])
    expected = weights(tmp_path / "off")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "warn").items())


@pytest.mark.slow
def test_two_processes_roll_back_together(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    options = [*ROLLBACK, "training.iterations=4"]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, options, alarm_in_every_second_iteration) == [0, 0]
    expected = read_rows(tmp_path / "one")
    assert expected[1]["guard/rolled_back_to"] == 0
    for found, row in zip(read_rows(tmp_path / "run"), expected, strict=True):
        assert found == pytest.approx(row, rel=0, abs=1e-5)
