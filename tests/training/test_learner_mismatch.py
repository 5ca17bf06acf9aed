"""The engine's log-probabilities compared with the trainer's: metrics and correction."""

from __future__ import annotations

import math

import pytest
import torch

from mm_cpgd.training.learner import logprob_difference, truncated_weights

OLD = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -7.0, -7.0]])
SAMPLED = torch.tensor([[-1.5, -1.0, 0.0], [-0.5, 0.0, 0.0]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_the_difference_is_the_token_mean_and_the_maximum_over_own_tokens() -> None:
    found = logprob_difference(OLD, SAMPLED, MASK, torch.tensor([2.0, 1.0]))
    assert found["logprob_difference"].item() == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found["max/logprob_difference"].item() == pytest.approx(1.0)


def test_micro_batches_add_up_to_the_mini_batch() -> None:
    lengths = torch.tensor([2.0, 1.0])
    parts = [logprob_difference(OLD[i : i + 1], SAMPLED[i : i + 1], MASK[i : i + 1], lengths) for i in (0, 1)]
    whole = logprob_difference(OLD, SAMPLED, MASK, lengths)
    total = sum(part["logprob_difference"] for part in parts)
    torch.testing.assert_close(total, whole["logprob_difference"])


def test_weights_are_the_ratio_up_to_the_cap_and_one_where_nothing_counts() -> None:
    found = truncated_weights(OLD, SAMPLED, MASK, cap=1.2)
    expected = torch.tensor([[1.2, math.exp(-1.0), 1.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(found, expected)


def test_a_token_that_the_engine_gave_no_number_for_keeps_its_weight() -> None:
    found = truncated_weights(OLD[:1], torch.tensor([[math.nan, -1.0, 0.0]]), MASK[:1], cap=2.0)
    assert found[0, 0] == 1.0
