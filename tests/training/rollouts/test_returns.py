"""Returns of turns, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mm_cpgd.environments import Observation
from mm_cpgd.rollout import Completion
from mm_cpgd.rollout.engine import Talk, Turn
from mm_cpgd.training.rollouts.returns import (
    gather_turn_rewards,
    token_advantages,
    turn_advantages,
    turn_returns,
)

NAN = float("nan")


class One:
    """Accelerator of one process."""

    device = torch.device("cpu")
    num_processes = 1

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        return values


def conversation(*scores: dict[str, float]) -> Completion:
    """Return a conversation of turns of two tokens with one observed token between them."""
    turns = tuple(Turn("x", 2, Observation(done=True, scores=one)) for one in scores)
    own = torch.tensor([True, True, False] * len(scores))[:-1]
    return Completion(torch.arange(len(own)), torch.zeros(len(own)), "x", True, talk=Talk(turns, own))


def test_scores_of_turns_are_weighted_and_absent_turns_are_none() -> None:
    groups = [[conversation({"near": 1.0}, {"near": 0.5, "calls": 2.0}), conversation({"other": 9.0})], []]
    accelerator: Any = One()
    weights = {"near": 2.0, "calls": -0.25}
    found = gather_turn_rewards(accelerator, [groups], weights, completions=2, turns=3)
    assert found[0, 0].tolist() == pytest.approx([2.0, 0.5, NAN], nan_ok=True)
    assert found[0, 1].tolist() == pytest.approx([0.0, NAN, NAN], nan_ok=True)
    assert found[1].isnan().all()


def test_a_return_is_what_follows_and_the_last_turn_has_the_rest() -> None:
    by_turn = torch.tensor([[[0.2, 0.4, NAN], [0.0, NAN, NAN], [0.1, 0.1, 0.1]]])
    rewards = torch.tensor([[1.6, 0.5, NAN]])  # the rules gave 1.0 and 0.5; the third is unscored
    found = turn_returns(rewards, by_turn, discount=0.5)
    assert found[0, 0].tolist() == pytest.approx([0.2 + 0.5 * 1.4, 1.4, NAN], nan_ok=True)
    assert found[0, 1].tolist() == pytest.approx([0.5, NAN, NAN], nan_ok=True)
    assert found[0, 2].isnan().all()


def test_without_discount_the_first_return_is_the_reward() -> None:
    by_turn = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    by_turn[:, 1, 3:] = by_turn[:, 2, 1:] = NAN
    rewards = torch.arange(12.0).view(4, 3)
    torch.testing.assert_close(turn_returns(rewards, by_turn, 1.0)[..., 0], rewards)


def test_a_turn_is_compared_with_the_same_turn_of_its_group() -> None:
    returns = torch.tensor([[[1.0, 4.0], [3.0, NAN], [5.0, 8.0]], [[1.0, 1.0]] * 3])
    keep = torch.tensor([True, False])

    def centred(rewards: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        assert rows.tolist() == [True, False]
        return (rewards - rewards.nanmean(1, keepdim=True)).nan_to_num(0.0)

    found = turn_advantages(returns, keep, centred)
    assert found[0].tolist() == [[-2.0, -2.0], [0.0, 0.0], [2.0, 2.0]]
    assert not found[1].any()


def test_tokens_have_the_advantage_of_their_turn_and_observations_none() -> None:
    found = token_advantages(conversation({}, {}, {}), torch.tensor([1.0, -2.0, 3.0, 0.0]))
    assert found.tolist() == [1, 1, 0, -2, -2, 0, 3, 3]
