"""A process of several is killed: the others end by themselves with one message, and ``--resume`` goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from mm_cpgd.checkpoint.folder import find_damage
from tests.fakes import training_runs as jobs
from tests.fakes.training_runs import OnRank, Sabotage

Rows = Callable[[Path], list[dict[str, Any]]]
OPTIONS = ("evaluation.every=2", "evaluation.batch_prompts=2", "training.schedule=cosine")


class Straight(NamedTuple):
    """A run on two processes that nothing has interrupted."""

    yaml: Path
    strategy: str
    rows: list[dict[str, Any]]
    weights: dict[str, Any]


@pytest.fixture(scope="module")
def straight(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_yaml: Callable[[Path], Path],
    read_rows: Rows,
) -> Straight:
    yaml = make_yaml(tmp_path_factory.mktemp("straight"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        options = [*OPTIONS, f"distributed.strategy={request.param}"]
        assert jobs.in_two_processes(yaml, options) == [0, 0]
    run = yaml.parent / "run"
    return Straight(yaml, request.param, read_rows(run), final(run))


def final(run: Path) -> dict[str, Any]:
    files = sorted((run / "final").glob("model*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


KILLS = [
    ("ddp", jobs.die_in_rollout, 0),
    ("ddp", jobs.die_in_update, 1),
    ("ddp", jobs.die_in_checkpoint, 0),
    ("ddp", jobs.die_in_evaluation, 1),
    ("fsdp2", jobs.die_in_rollout, 1),
    ("fsdp2", jobs.die_in_update, 0),
    ("fsdp2", jobs.die_before_writing, 0),
    ("fsdp2", jobs.die_in_shards, 1),
    ("fsdp2", jobs.die_in_evaluation, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("straight", "sabotage", "rank"),
    [pytest.param(*kill, id=f"{kill[0]}-{kill[1].__name__}-{kill[2]}") for kill in KILLS],
    indirect=["straight"],
)
def test_the_survivor_ends_soon_with_one_message_and_the_resumed_run_is_the_uninterrupted_one(
    straight: Straight, tmp_path: Path, read_rows: Rows, sabotage: Sabotage, rank: int
) -> None:
    run = tmp_path / "run"
    options = [*OPTIONS, f"distributed.strategy={straight.strategy}", f"output={run}"]
    codes = jobs.in_two_processes(straight.yaml, options, OnRank(rank, sabotage))
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 1
    said = straight.yaml.with_name(f"stderr-{1 - rank}").read_text()
    assert f"mm-cpgd: process {rank} on " in said
    assert said.count("run the same command with --resume") == 1
    assert "Traceback" not in said
    for place in (run / "checkpoints").glob("step-*"):
        assert find_damage(place) is None
    assert jobs.in_two_processes(straight.yaml, options, resume=True) == [0, 0]
    assert read_rows(run) == straight.rows
    assert_same_weights(final(run), straight.weights)


def assert_same_weights(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)
