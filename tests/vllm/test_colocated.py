"""Training with a real vLLM in the training process: it always samples from the trainer's weights."""

from __future__ import annotations

import pytest

from tests.vllm.conftest import BOUND, Train

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")


def test_in_eight_iterations_vllm_always_has_the_weights_of_the_trainer(train: Train) -> None:
    # Its twelve pictures repeat from the second iteration on.
    ended = train("training.iterations=8")
    assert len(ended.differences) == 8
    assert max(ended.differences) <= BOUND
    assert all(row["optimizer/grad_norm"] > 0.01 for row in ended.rows[:4])


def test_features_of_a_repeated_picture_are_those_of_the_trained_vision_tower(train: Train) -> None:
    ended = train("policy.freeze_vision=false", "training.learning_rate=5e-4", "training.iterations=5")
    assert max(ended.differences) <= BOUND


@pytest.mark.parametrize(
    "cuts",
    [
        ["rollout.temperature=1.3", "rollout.top_p=0.9", "rollout.top_k=40", "rollout.min_p=0.05"],
        ["rollout.temperature=0.7", "rollout.top_k=5"],
    ],
)
def test_temperature_and_cuts_count_on_both_sides(train: Train, cuts: list[str]) -> None:
    ended = train(*cuts, "training.iterations=3")
    assert max(ended.differences) <= BOUND


def test_a_compiled_model_takes_new_weights_too(train: Train) -> None:
    options = "rollout.vllm.options={dtype: float32, enforce_eager: false}"
    ended = train(options, "training.iterations=3")
    assert max(ended.differences) <= BOUND


def test_merged_weights_and_adapters_alone_give_the_same_run(train: Train) -> None:
    lora = ["policy.lora={rank: 4}", "training.learning_rate=1e-3", "training.iterations=4"]
    merged = train(*lora)
    alone = train(*lora, "rollout.vllm.adapters=adapter")
    for ended in (merged, alone):
        assert max(ended.differences) <= BOUND
    rewards = [[row["reward/mean"] for row in ended.rows] for ended in (merged, alone)]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-6)
    norms = [[row["optimizer/grad_norm"] for row in ended.rows] for ended in (merged, alone)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
