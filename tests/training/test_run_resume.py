"""A run that is killed or stopped, and resumed, is the uninterrupted run, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mm_cpgd.checkpoint.serialization import load_state
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.rollout import GroupsInParts
from mm_cpgd.training.heldout import HeldOut
from mm_cpgd.training.optimizer import OptimizerStep
from tests.fakes import training_runs as trainer_jobs
from tests.fakes.training_runs import Sabotage

Rows = Callable[[Path], list[dict[str, Any]]]
# The learning rate changes with every step; an evaluation, as an iteration's rollouts, takes two batches; an
# iteration in progress holds the tokens that the cut kept.
OPTIONS = (
    "evaluation.every=2",
    "evaluation.batch_prompts=2",
    "training.schedule=cosine",
    "training.warmup_steps=2",
    "rollout.temperature=1.3",
    "rollout.top_p=0.9",
)


class Straight(NamedTuple):
    """A run that nothing has interrupted."""

    yaml: Path
    run: Path
    rows: list[dict[str, Any]]
    rollouts: dict[str, bytes]
    weights: bytes


def rollouts(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run / "rollouts").glob("*.jsonl")}


def final(run: Path) -> bytes:
    return (run / "final" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(
    tmp_path_factory: pytest.TempPathFactory, make_yaml: Callable[[Path], Path], read_rows: Rows
) -> Straight:
    yaml = make_yaml(tmp_path_factory.mktemp("straight"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        trainer_jobs.run(yaml, OPTIONS)
    run = yaml.parent / "run"
    return Straight(yaml, run, read_rows(run), rollouts(run), final(run))


@pytest.fixture
def resume(straight: Straight, tmp_path: Path, read_rows: Rows) -> Callable[..., str]:
    """Resume the run in ``tmp_path``, compare it with the uninterrupted one, return its output."""

    def carry_on() -> str:
        run = tmp_path / "run"
        _, output = trainer_jobs.run(straight.yaml, [*OPTIONS, f"output={run}"], resume=True)
        assert read_rows(run) == straight.rows
        assert rollouts(run) == straight.rollouts
        assert final(run) == straight.weights
        return output

    return carry_on


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "resumed_after"),
    [
        (trainer_jobs.die_in_rollout, 1),
        (trainer_jobs.die_in_update, 1),
        (trainer_jobs.die_in_checkpoint, 1),
        (trainer_jobs.die_before_the_first_checkpoint, None),
    ],
)
def test_a_killed_run_resumes_to_the_uninterrupted_result(
    straight: Straight,
    tmp_path: Path,
    resume: Callable[..., str],
    sabotage: Sabotage,
    resumed_after: int | None,
) -> None:
    options = [*OPTIONS, f"output={tmp_path / 'run'}"]
    assert trainer_jobs.in_child(straight.yaml, options, sabotage) == -signal.SIGKILL
    output = resume()
    assert (f"resumed after iteration {resumed_after} of 3" in output) == (resumed_after is not None)


def damage_newest(run: Path) -> Path:
    newest = run / "checkpoints" / "step-3"
    file = newest / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return newest


def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    straight: Straight, tmp_path: Path, resume: Callable[..., str]
) -> None:
    shutil.copytree(straight.run, tmp_path / "run")
    newest = damage_newest(tmp_path / "run")
    output = resume()
    assert f"warning: checkpoint {newest} is damaged and skipped" in output
    assert "resumed after iteration 2 of 3" in output


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str, int, int], None]]:
    """Let this process get a signal before the n-th call of a method."""

    def arrange(owner: Any, name: str, number: int, kind: int) -> None:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # undone at the end
        trainer_jobs.at_call(owner, name, number, lambda: os.kill(os.getpid(), kind))

    yield arrange
    monkeypatch.undo()


# Owner, method, number of the call, and what the checkpoint then holds: its step, and steps done of a pending
# iteration or None. The first two batches are the evaluation before; an iteration has four optimizer steps.
STOPS = [
    pytest.param(HeldOut, "_batch", 1, "step-0", None, id="evaluation-before"),
    pytest.param(GroupsInParts, "take", 1, "step-0", None, id="first-rollout"),
    pytest.param(GroupsInParts, "take", 2, "step-1", 0, id="end-of-rollout"),
    pytest.param(GroupsInParts, "take", 3, "step-1", None, id="later-rollout"),
    pytest.param(OptimizerStep, "__call__", 1, "step-1", 1, id="first-step"),
    pytest.param(OptimizerStep, "__call__", 6, "step-2", 2, id="later-step"),
    pytest.param(HeldOut, "_batch", 3, "step-2", 4, id="evaluation-on-the-way"),
]


@pytest.mark.parametrize(("owner", "method", "call", "step", "done"), STOPS)
def test_a_stopped_run_saves_its_state_and_resumes_from_it(
    straight: Straight,
    tmp_path: Path,
    resume: Callable[..., str],
    signal_at: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    method: str,
    call: int,
    step: str,
    done: int | None,
) -> None:
    signal_at(owner, method, call, signal.SIGTERM)
    run = tmp_path / "run"
    with pytest.raises(RunEnded, match="--resume") as caught:
        trainer_jobs.run(straight.yaml, [*OPTIONS, f"output={run}"])
    assert caught.value.exit_code == 143
    newest = max((run / "checkpoints").iterdir())
    assert newest.name == step
    (own,) = load_state(newest / "run.safetensors")["processes"]
    assert (None if own["pending"] is None else len(own["pending"]["steps"])) == done
    monkeypatch.undo()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    resume()


def test_ctrl_c_is_a_stop_like_any_other(
    straight: Straight,
    tmp_path: Path,
    resume: Callable[..., str],
    signal_at: Callable[..., None],
) -> None:
    signal_at(OptimizerStep, "__call__", 7, signal.SIGINT)
    with pytest.raises(RunEnded) as caught:
        trainer_jobs.run(straight.yaml, [*OPTIONS, f"output={tmp_path / 'run'}"])
    assert caught.value.exit_code == 130
    resume()


def test_half_an_iteration_does_not_take_the_place_of_the_best_checkpoint(
    straight: Straight, tmp_path: Path, signal_at: Callable[..., None]
) -> None:
    signal_at(OptimizerStep, "__call__", 10, signal.SIGTERM)  # in the third iteration
    run = tmp_path / "run"
    with pytest.raises(RunEnded):
        trainer_jobs.run(straight.yaml, [*OPTIONS, f"output={run}", "checkpoint.keep=1"])
    names = {entry.name for entry in (run / "checkpoints").iterdir()}
    assert names == {"step-2", "step-3"}
    whole = (straight.run / "checkpoints" / "step-2" / "weights.safetensors").read_bytes()
    assert (run / "checkpoints" / "step-2" / "weights.safetensors").read_bytes() == whole


def test_a_checkpoint_of_other_weights_is_refused(straight: Straight, tmp_path: Path) -> None:
    shutil.copytree(straight.run, tmp_path / "run")
    options = [*OPTIONS, f"output={tmp_path / 'run'}", "policy.lora={rank: 2}"]
    with pytest.raises(UserError, match=r"this is another run, .*policy\.lora: None → "):
        trainer_jobs.run(straight.yaml, options, resume=True)


def test_a_longer_run_continues_from_the_end_of_a_shorter_one(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    trainer_jobs.run(yaml, ["training.iterations=1", "evaluation.after=false"])
    trainer_jobs.run(yaml, ["training.iterations=2", "evaluation.after=false"], resume=True)
    trainer_jobs.run(
        yaml, ["training.iterations=2", "evaluation.after=false", f"output={tmp_path / 'straight'}"]
    )
    assert read_rows(tmp_path / "run") == read_rows(tmp_path / "straight")
