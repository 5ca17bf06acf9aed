"""Several training processes with a real vLLM: one in each, or one that they share."""

from __future__ import annotations

import pytest

from tests.vllm.conftest import BOUND, Ended, Train

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")

KEYS = ("reward/mean", "optimizer/grad_norm", "completion/length_mean")


@pytest.fixture
def alone(train: Train) -> Ended:
    return train("training.iterations=3")


def test_sharded_or_sharing_trainers_make_the_run_of_one(train: Train, alone: Ended) -> None:
    kinds = {
        "sharded": ["distributed.strategy=fsdp2"],
        "sharing": ["rollout.vllm.tensor_parallel=2"],
        "sharded adapters": ["distributed.strategy=fsdp2", "policy.lora={rank: 4}"],
    }
    sharded = train(*kinds["sharded"], "training.iterations=3", processes=2)
    sharing = train(*kinds["sharing"], "training.iterations=3", processes=2)
    for ended in (sharded, sharing):
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
