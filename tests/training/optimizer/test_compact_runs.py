"""Runs with an AdamW for little memory: resumed, rolled back, on two processes, and refused with shards."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from tests.fakes import training_runs as jobs

Rows = Callable[[Path], list[dict[str, Any]]]
ALL = (
    "policy.dtype=bfloat16",
    "training.optimizer=adamw_8bit",
    "training.rounding=stochastic",
    "training.offload_moments=true",
)
COMMON = ("evaluation.after=false", "training.schedule=cosine", "training.learning_rate=1e-3")
GUARD = ("guard.action=rollback", "guard.settle=0")


def final(run: Path) -> bytes:
    return (run / "final" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("options", [ALL[:1] + ALL[2:3], ALL[1:2], ALL], ids=["rounding", "8 bits", "all"])
def test_a_killed_run_resumes_to_the_uninterrupted_result(
    yaml: Path, tmp_path: Path, read_rows: Rows, options: tuple[str, ...]
) -> None:
    common = [*COMMON, *GUARD, *options]
    jobs.run(yaml, [*common, f"output={tmp_path / 'one'}"])
    assert jobs.in_child(yaml, common, jobs.die_in_update) == -signal.SIGKILL
    jobs.run(yaml, common, resume=True)
    assert read_rows(tmp_path / "run") == read_rows(tmp_path / "one")
    assert final(tmp_path / "run") == final(tmp_path / "one")


@pytest.mark.slow
def test_a_resumed_run_may_move_the_moments(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    common = [*COMMON, *ALL]
    jobs.run(yaml, [*common, f"output={tmp_path / 'one'}"])
    assert jobs.in_child(yaml, common, jobs.die_in_update) == -signal.SIGKILL
    jobs.run(yaml, [*common, "training.offload_moments=false"], resume=True)
    assert final(tmp_path / "run") == final(tmp_path / "one")


@pytest.mark.slow
def test_two_processes_keep_the_same_weights(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    assert jobs.in_two_processes(yaml, [*COMMON, *ALL], assert_equal_weights) == [0, 0]


def assert_equal_weights() -> None:
    """Compare the weights of both processes after every optimizer step."""
    import torch

    from mm_cpgd.training.optimizer import OptimizerStep

    take = OptimizerStep.__call__

    def checked(self: OptimizerStep, loss: float) -> dict[str, float]:
        metrics = take(self, loss)
        own = torch.cat([parameter.detach().flatten().float() for parameter in self.parameters])
        first, second = self.accelerator.gather(own).chunk(2)
        assert torch.equal(first, second)
        return metrics

    OptimizerStep.__call__ = checked  # type: ignore[method-assign]


@pytest.mark.slow
def test_shards_are_refused_with_what_to_use_instead(yaml: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sharded = [*COMMON, "training.offload_moments=true", "distributed.strategy=fsdp2"]
    assert jobs.in_two_processes(yaml, sharded) == [2, 2]


@pytest.mark.slow
def test_another_optimizer_is_refused_on_resuming(yaml: Path) -> None:
    jobs.run(yaml, [*COMMON, "training.iterations=1"])
    with pytest.raises(UserError, match=r"training\.optimizer: 'adamw' → 'adamw_8bit'"):
        jobs.run(yaml, [*COMMON, "training.optimizer=adamw_8bit"], resume=True)
