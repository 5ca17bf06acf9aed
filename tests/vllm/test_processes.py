"""Several training processes with a real vLLM: one in each, or one that they share."""

from __future__ import annotations

import pytest

from tests.vllm.conftest import BOUND, Ended, Train, train_in

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")

KEYS = ("reward/mean", "optimizer/grad_norm", "completion/length_mean")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run of one process."""
    return train_in(tmp_path_factory.mktemp("alone"), "training.iterations=3")


@pytest.mark.parametrize(
    "kind",
    [[], ["distributed.strategy=fsdp2"], ["rollout.vllm.tensor_parallel=2"]],
    ids=["whole", "sharded", "sharing"],
)
def test_two_trainers_make_the_run_of_one(train: Train, alone: Ended, kind: list[str]) -> None:
    ended = train("training.iterations=3", *kind, processes=2)
    assert max(ended.differences) <= BOUND
    for key in KEYS:
        expected = [row[key] for row in alone.rows]
        assert [row[key] for row in ended.rows] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("adapters", ["merged", "adapter"])
def test_sharded_adapters_arrive_whole(train: Train, adapters: str) -> None:
    ended = train(
        "distributed.strategy=fsdp2",
        "policy.lora={rank: 4}",
        f"rollout.vllm.adapters={adapters}",
        "training.learning_rate=1e-3",
        "training.iterations=3",
        processes=2,
    )
    assert max(ended.differences) <= BOUND


def test_processes_that_cannot_share_a_vllm_are_one_message(train: Train) -> None:
    ended = train("rollout.vllm.tensor_parallel=2", status=2)
    assert "rollout.vllm.tensor_parallel=2 processes share one vLLM, and the run's 1" in ended.output
