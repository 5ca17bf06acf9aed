"""Properties of all aggregations: sum of the weights, and independence of the split into micro-batches."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_cpgd.algorithms import aggregation

TOKENS = 6
PARTS = {
    "token_mean": aggregation.token_mean,
    "completion_mean": aggregation.completion_mean,
    "constant": lambda mask, lengths: aggregation.constant(mask, lengths, TOKENS),
}
few_examples = settings(max_examples=40, deadline=None)
counts_of_tokens = st.lists(st.integers(0, TOKENS), min_size=1, max_size=8)


def mask_of(counts):
    return torch.arange(TOKENS) < torch.tensor(counts)[:, None]


def lengths_of(counts):
    return torch.tensor(counts, dtype=torch.float64)


@few_examples
@given(counts=counts_of_tokens)
def test_all_weights_of_a_mean_sum_to_1(counts):
    expected = float(any(counts))
    for name in ("token_mean", "completion_mean"):
        total = PARTS[name](mask_of(counts), lengths_of(counts)).sum().item()
        assert abs(total - expected) < 1e-12


@few_examples
@given(counts=counts_of_tokens)
def test_the_weights_of_constant_sum_to_tokens_over_completions_times_length(counts):
    total = PARTS["constant"](mask_of(counts), lengths_of(counts)).sum().item()
    completions = max(1, sum(count > 0 for count in counts))
    assert abs(total - sum(counts) / (completions * TOKENS)) < 1e-12


@few_examples
@given(counts=counts_of_tokens, part=st.sampled_from(sorted(PARTS)))
def test_masked_positions_have_weight_0_and_all_others_a_positive_one(counts, part):
    weights = PARTS[part](mask_of(counts), lengths_of(counts))
    assert torch.equal(weights > 0, mask_of(counts))


@few_examples
@given(
    counts=counts_of_tokens,
    part=st.sampled_from(sorted(PARTS)),
    cuts=st.sets(st.integers(1, 7)),
    seed=st.integers(0, 2**16),
)
def test_the_sum_over_micro_batches_is_that_of_the_mini_batch(counts, part, cuts, seed):
    terms = torch.randn(len(counts), TOKENS, generator=torch.Generator().manual_seed(seed)).double()
    mask, lengths = mask_of(counts), lengths_of(counts)
    whole = (PARTS[part](mask, lengths) * terms).sum()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(counts)), len(counts)]
    split = sum(
        (PARTS[part](mask[start:end], lengths) * terms[start:end]).sum()
        for start, end in itertools.pairwise(bounds)
    )
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-12)


@few_examples
@given(
    counts=counts_of_tokens,
    part=st.sampled_from(sorted(PARTS)),
    random=st.randoms(use_true_random=False),
)
def test_the_order_of_the_completions_does_not_matter(counts, part, random):
    order = list(range(len(counts)))
    random.shuffle(order)
    weights = PARTS[part](mask_of(counts), lengths_of(counts))
    permuted = [counts[index] for index in order]
    assert torch.equal(PARTS[part](mask_of(permuted), lengths_of(permuted)), weights[order])
