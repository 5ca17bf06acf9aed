"""MMR1's score of prompts: hand-worked values."""

import pytest
import torch

from mm_cpgd.algorithms.selection import distinct_share, variance_aware

NAN = float("nan")


def test_the_score_is_outcome_variance_and_diversity_weighted():
    accuracy = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    diversity = torch.tensor([0.5, 1.0], dtype=torch.float64)
    # 0.8·(1/4·3/4) + 0.2·0.5 and 0.8·0 + 0.2·1.
    assert variance_aware(accuracy, diversity).tolist() == pytest.approx([0.25, 0.2], abs=1e-15)


def test_unscored_completions_are_left_out_and_unscored_prompts_score_nothing():
    accuracy = torch.tensor([[1.0, NAN, 0.0, NAN], [NAN] * 4])
    found = variance_aware(accuracy, torch.ones(2), outcome=1.0, variety=0.0)
    assert found.tolist() == [0.25, 0.0]


def test_distinct_share_counts_bigrams_over_the_group():
    # 1-2, 2-1, 1-2 and 1-2: two distinct of four.
    assert distinct_share([[1, 2, 1, 2], [1, 2]]) == 0.5
    assert distinct_share([[1, 2, 3], [4, 5]]) == 1.0
    assert distinct_share([[7], []]) == 0.0


def test_distinct_share_of_single_tokens():
    assert distinct_share([[1, 1], [2, 1]], n=1) == 0.5
