"""Token weights, and that splitting a mini-batch changes nothing."""

import pytest
import torch

from mm_cpgd.algorithms import aggregation

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
LENGTHS = torch.tensor([3, 1], dtype=torch.float64)


def test_token_mean_weights_all_tokens_of_the_mini_batch_equally():
    weights = aggregation.token_mean(MASK, LENGTHS)
    assert weights.tolist() == [[0.25, 0.25, 0.25, 0.0], [0.25, 0.0, 0.0, 0.0]]


def test_completion_mean_weights_all_completions_equally():
    weights = aggregation.completion_mean(MASK, LENGTHS)
    torch.testing.assert_close(
        weights[0], torch.tensor([1 / 6, 1 / 6, 1 / 6, 0], dtype=torch.float64), rtol=0, atol=1e-16
    )
    assert weights[1].tolist() == [0.5, 0.0, 0.0, 0.0]


def test_completion_sum_counts_every_token_once_for_each_completion():
    weights = aggregation.completion_sum(MASK, LENGTHS)
    assert weights.tolist() == [[0.5, 0.5, 0.5, 0.0], [0.5, 0.0, 0.0, 0.0]]
    assert torch.equal(weights, aggregation.constant(MASK, LENGTHS, 10, length=1))


def test_constant_divides_by_completions_times_the_longest_possible():
    weights = aggregation.constant(MASK, LENGTHS, 10)
    assert weights.tolist() == [[0.05, 0.05, 0.05, 0.0], [0.05, 0.0, 0.0, 0.0]]


def test_constant_takes_a_length_of_its_own():
    assert aggregation.constant(MASK, LENGTHS, 10, length=5)[1, 0].item() == 0.1


def test_denominators_are_those_of_the_whole_mini_batch():
    # One of two micro-batches: the other holds completions of 5 and 1 tokens.
    lengths = torch.tensor([3, 1, 5, 1], dtype=torch.float64)
    assert aggregation.token_mean(MASK, lengths)[0, 0].item() == 0.1
    assert aggregation.completion_mean(MASK, lengths)[1, 0].item() == 0.25
    assert aggregation.constant(MASK, lengths, 10)[0, 0].item() == 1 / 40


def test_micro_batches_with_different_token_counts_are_not_averaged_with_equal_weight():
    # Seen in public code: the mean of the micro-batches' means, here (1 + 5) / 2 instead of (3·1 + 1·5) / 4.
    terms = torch.tensor([[1.0, 1.0, 1.0, 9.0], [5.0, 9.0, 9.0, 9.0]], dtype=torch.float64)
    halves = [(aggregation.token_mean(MASK[[i]], LENGTHS) * terms[[i]]).sum().item() for i in (0, 1)]
    assert sum(halves) == 2.0


@pytest.mark.parametrize("part", [aggregation.token_mean, aggregation.completion_mean])
def test_empty_completions_have_no_weight_and_do_not_count(part):
    mask = torch.tensor([[1, 1], [0, 0]], dtype=torch.bool)
    weights = part(mask, torch.tensor([2.0, 0.0], dtype=torch.float64))
    assert weights.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_a_mini_batch_without_tokens_has_weights_zero():
    mask = torch.zeros(1, 2, dtype=torch.bool)
    for part in (aggregation.token_mean, aggregation.completion_mean):
        assert part(mask, torch.zeros(1)).tolist() == [[0.0, 0.0]]
