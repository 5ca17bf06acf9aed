"""Training while a real vLLM samples the next batch, in a thread of the training process."""

from __future__ import annotations

import pytest

from tests.vllm.conftest import BOUND, Train

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")


@pytest.mark.parametrize("ahead", [1, 2])
def test_batches_are_sampled_by_the_weights_that_were_sent_for_them(train: Train, ahead: int) -> None:
    held_out = 'data.eval={path: "generated:all", limit: 8, seed: 2}'
    ended = train(f"rollout.ahead={ahead}", "training.iterations=5", held_out, "evaluation.every=2")
    trained = [row for row in ended.rows if row["iteration"]]
    ages = [row["rollout/staleness"] for row in trained]
    assert ages == ([0, 1, 1, 1, 1] if ahead == 1 else [0, 1, 2, 1, 2])
    assert max(ended.differences) <= BOUND
    # What the update learns from is older than the policy, and shows it.
    assert all(row["policy/ratio_max"] > 1.05 for row in trained[1:])
