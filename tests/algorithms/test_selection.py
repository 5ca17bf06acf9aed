"""Prompt selection, the overlong penalty and curriculum scores: hand-worked values."""

import pytest
import torch

from mm_cpgd.algorithms import selection
from mm_cpgd.algorithms.selection import distinct_share, variance_aware

NAN = float("nan")


def test_a_group_has_signal_when_its_rewards_differ():
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert selection.has_signal(rewards).tolist() == [True, False, False]


def test_unscored_completions_are_no_signal():
    rewards = torch.tensor([[1.0, NAN, 1.0], [NAN, NAN, NAN], [1.0, NAN, 0.0], [NAN, 0.0, NAN]])
    assert selection.has_signal(rewards).tolist() == [False, False, True, False]


def test_accuracy_filter_keeps_the_bounds_themselves():
    accuracy = torch.zeros(5, 10)
    for row, right in enumerate([0, 1, 5, 9, 10]):
        accuracy[row, :right] = 1
    assert selection.accuracy_filter(accuracy, low=0.1, high=0.9).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("completions", [7, 8, 10, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_accuracy_filter_meets_every_share_of_the_group_exactly(completions, dtype):
    for right in range(completions + 1):
        accuracy = (torch.arange(completions) < right).to(dtype)[None]
        share = right / completions
        assert selection.accuracy_filter(accuracy, low=share, high=share).tolist() == [True]


def test_accuracy_filter_excludes_unscored_completions_from_the_mean():
    accuracy = torch.tensor([[1.0, NAN, NAN, 1.0], [1.0, NAN, 0.0, NAN], [NAN] * 4])
    assert selection.accuracy_filter(accuracy).tolist() == [False, True, False]


def test_dynamic_sampling_uses_accuracy_as_in_the_paper():
    accuracy, rewards = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.5, 1.0]])
    assert selection.dynamic_sampling(accuracy, rewards).tolist() == [False]
    assert selection.dynamic_sampling(accuracy, rewards, on="rewards").tolist() == [True]


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (120, -1.0)]
)
def test_overlong_penalty_grows_linearly_over_the_buffer(length, expected):
    penalty = selection.overlong_penalty(torch.tensor([length]), 100, buffer=20)
    assert penalty.item() == pytest.approx(expected, abs=1e-7)


def test_overlong_buffer_is_a_fifth_of_the_tokens_by_default():
    lengths = torch.tensor([90, 100])
    assert torch.equal(
        selection.overlong_penalty(lengths, 100), selection.overlong_penalty(lengths, 100, buffer=20)
    )


def test_overlong_penalty_scales():
    assert selection.overlong_penalty(torch.tensor([100]), 100, penalty=0.5).item() == -0.5


def test_the_score_is_outcome_variance_and_diversity_weighted():
    accuracy = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    diversity = torch.tensor([0.5, 1.0], dtype=torch.float64)
    # 0.8·(1/4·3/4) + 0.2·0.5 and 0.8·0 + 0.2·1.
    assert variance_aware(accuracy, diversity).tolist() == pytest.approx([0.25, 0.2], abs=1e-15)


def test_unscored_completions_are_excluded_and_unscored_prompts_score_nothing():
    accuracy = torch.tensor([[1.0, NAN, 0.0, NAN], [NAN] * 4])
    found = variance_aware(accuracy, torch.ones(2), outcome=1.0, variety=0.0)
    assert found.tolist() == [0.25, 0.0]


def test_distinct_share_counts_bigrams_over_the_group():
    # 1-2, 2-1, 1-2 and 1-2: two distinct of four.
    assert distinct_share([[1, 2, 1, 2], [1, 2]], 2) == 0.5
    assert distinct_share([[1, 2, 3], [4, 5]], 2) == 1.0
    assert distinct_share([[7], []], 2) == 0.0


def test_distinct_share_of_single_tokens():
    assert distinct_share([[1, 1], [2, 1]], n=1) == 0.5
