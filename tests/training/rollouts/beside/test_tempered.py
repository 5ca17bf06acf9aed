"""Completions at another temperature as columns beside an iteration's rollouts."""

from __future__ import annotations

import torch

from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import PartConfig, TemperedConfig
from mm_cpgd.rollout import Completion
from mm_cpgd.training.rollout_stats import RolloutStats
from mm_cpgd.training.rollouts.beside.tempered import Further, Tempered

USABLE = torch.ones(4, 2, dtype=torch.bool)
MINE = torch.ones(4, dtype=torch.bool)


def further(right: list[list[float]], weight: float = 1.0, most: int = 9) -> Further:
    accuracy = torch.tensor(right, dtype=torch.float64)
    lengths = torch.full_like(accuracy, 3.0)
    values = torch.stack([accuracy, lengths, torch.ones_like(accuracy), 0 * accuracy, accuracy], 2)
    one = Completion(torch.ones(3, dtype=torch.long), torch.zeros(3), "", finished=True)
    return Further(
        Tempered(len(right), weight, 8), [[one, one] for _ in right], RolloutStats(values), 1.2, most
    )


def test_right_completions_of_mixed_groups_are_columns_whose_advantage_is_their_share() -> None:
    (found,) = further([[1.0, 0.0], [0.0, 1.0]]).columns(USABLE, MINE)
    assert found.usable.tolist() == [[True, False], [False, True], [False, False], [False, False]]
    # Two of P·G = 8.
    assert found.advantages[found.usable].tolist() == [0.25, 0.25]
    assert found.lengths[found.usable].tolist() == [3, 3]
    assert [len(group) for group in found.groups] == [2, 2, 0, 0]


def test_the_number_is_bounded_and_the_weight_is_a_factor() -> None:
    (found,) = further([[1.0, 0.0], [0.0, 1.0]], weight=2.0, most=1).columns(USABLE, MINE)
    assert found.usable.nonzero().tolist() == [[0, 0]]
    assert found.advantages[0, 0] == 0.25


def test_without_a_right_one_or_a_prompt_that_is_learned_from_there_are_none() -> None:
    assert further([[0.0, 0.0], [1.0, 1.0]]).columns(USABLE, MINE) == []
    left_out = USABLE.clone()
    left_out[0] = False
    assert further([[1.0, 0.0], [0.0, 0.0]]).columns(left_out, MINE) == []


def test_the_share_of_the_prompts_is_rounded_up() -> None:
    chosen = TemperedConfig(temperature=PartConfig(name="aepo"), share=0.1)
    assert Tempered.of(RolloutConfig(prompts=30), chosen).prompts == 3
    assert Tempered.of(RolloutConfig(prompts=32), chosen) == Tempered(4, 1.0, 256)
