"""Tokens chosen by entropy or covariance: hand-worked values, and independence of order."""

import pytest
import torch

from mm_cpgd.algorithms import token_weights
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from tests.fakes.objectives import build

# Means: log π −2, A 1. Centred: 1, −1, 2, −2 and 3, −1, −1, −1. Products: 3, 1, −2, 2.
LOGPROBS = torch.tensor([-1.0, -3.0, 0.0, -4.0], dtype=torch.float64)
ADVANTAGES = torch.tensor([4.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def test_covariance_is_the_product_of_centred_values():
    assert token_weights.covariance(LOGPROBS, ADVANTAGES).tolist() == [3.0, 1.0, -2.0, 2.0]


def test_its_mean_is_the_covariance_of_the_mini_batch():
    generator = torch.Generator().manual_seed(1)
    pair = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    mean = token_weights.covariance(*pair).mean()
    torch.testing.assert_close(mean, torch.cov(pair, correction=0)[0, 1], rtol=0, atol=1e-14)


def test_forking_tokens_are_the_share_with_the_highest_entropy():
    entropy = torch.tensor([0.1, 2.0, 0.3, 1.0, 0.2, 0.0, 0.4, 0.5, 0.6, 0.7])
    assert token_weights.forking_tokens(entropy, share=0.2).nonzero().squeeze(1).tolist() == [1, 3]


def test_forking_tokens_at_the_threshold_count():
    assert token_weights.forking_tokens(torch.ones(5), share=0.2).tolist() == [1.0] * 5


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.8, 0.99, 1.0])
def test_the_quantile_is_torchs(q):
    values = torch.randn(23, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.quantile(values, q).item()
    assert token_weights.quantile(values, q).item() == pytest.approx(expected, abs=1e-14)


def test_the_quantile_is_of_more_values_than_torch_takes():
    # torch.quantile refuses more than 16 million; a mini-batch of long completions has as many tokens.
    values = torch.arange(17_000_001, dtype=torch.float32)
    assert token_weights.quantile(values, 0.5).item() == 8_500_000


def test_clip_cov_drops_only_tokens_within_the_band():
    weights = token_weights.clip_cov(LOGPROBS, ADVANTAGES, 0, share=0.9, low=1.0, high=3.0)
    # Open at both ends: of 3, 1, −2, 2 only 2 lies between.
    assert weights.tolist() == [1, 1, 1, 0]


def test_clip_cov_drops_the_share_of_all_tokens_and_at_least_one():
    logprobs = torch.linspace(-9, 0, 100, dtype=torch.float64)
    advantages = torch.linspace(-2, 2, 100, dtype=torch.float64)
    for share, count in ((0.001, 1), (0.05, 5), (0.9, 66)):
        weights = token_weights.clip_cov(logprobs, advantages, 0, share=share, low=1.0, high=99.0)
        inside = int((token_weights.covariance(logprobs, advantages) > 1).sum())
        assert (weights == 0).sum() == min(count, inside)


def test_clip_cov_drops_nothing_for_an_empty_band():
    weights = token_weights.clip_cov(LOGPROBS, ADVANTAGES, 0, share=0.5, low=5.0, high=6.0)
    assert weights.tolist() == [1] * 4


def test_clip_cov_draws_by_the_seed():
    logprobs = torch.linspace(-9, 0, 100, dtype=torch.float64)
    advantages = torch.linspace(-2, 2, 100, dtype=torch.float64)
    draws = [token_weights.clip_cov(logprobs, advantages, seed, share=0.05) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("part", ["forking_tokens", "clip_cov", "largest_covariances"])
def test_the_order_of_the_tokens_changes_no_choice(part):
    # Processes put their tokens side by side in another order than one process has them.
    generator = torch.Generator().manual_seed(3)
    logprobs, advantages = 2 * torch.randn(2, 60, generator=generator, dtype=torch.float64)
    order = torch.randperm(60, generator=generator)

    def ask(of):
        if part == "forking_tokens":
            return token_weights.forking_tokens(logprobs[of].abs())
        inputs = (logprobs[of], advantages[of])
        if part == "clip_cov":
            return token_weights.clip_cov(*inputs, 5, share=0.1)
        return token_weights.largest_covariances(*inputs, share=0.1)

    plain = ask(torch.arange(60))
    assert 0 < plain.sum() < 60
    assert torch.equal(ask(order), plain[order])


def test_the_largest_covariances_are_marked():
    marked = token_weights.largest_covariances(LOGPROBS, ADVANTAGES, share=0.5)
    assert marked.tolist() == [1, 0, 0, 1]


def test_at_least_one_token_is_marked():
    assert token_weights.largest_covariances(LOGPROBS, ADVANTAGES, share=2e-4).tolist() == [1, 0, 0, 0]


def test_a_mini_batch_without_tokens_has_no_weights():
    nothing = torch.zeros(0)
    assert token_weights.forking_tokens(nothing).numel() == 0
    assert token_weights.clip_cov(nothing, nothing, 0).numel() == 0
    assert token_weights.largest_covariances(nothing, nothing, share=0.1).numel() == 0


def test_the_off_policy_mask_drops_only_bad_completions_that_the_policy_has_left():
    # Means of −ℓ over two tokens: 0.6, 0.6, 0.4, −2; δ is 0.5.
    ell = torch.tensor([[-1.0, -0.2], [-0.2, -1.0], [-0.8, 0.0], [2.0, 2.0]], dtype=torch.float64)
    advantages = torch.tensor([[-1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    weights = token_weights.off_policy_mask(ell, advantages, torch.ones(4, 2, dtype=torch.bool), delta=0.5)
    assert weights.tolist() == [[0, 0], [1, 1], [1, 1], [1, 1]]


def test_the_off_policy_mask_takes_the_mean_over_own_tokens_and_the_sign_of_each_token():
    ell = torch.tensor([[-0.6, 0.0, 0.0]], dtype=torch.float64)
    advantages = torch.tensor([[-1.0, 1.0, 0.0]], dtype=torch.float64)
    one, three = (torch.arange(3)[None] < own for own in (1, 3))
    assert token_weights.off_policy_mask(ell, advantages, one).tolist() == [[0, 1, 1]]
    assert token_weights.off_policy_mask(ell, advantages, three).tolist() == [[1, 1, 1]]


IMPACT_ADVANTAGES = torch.tensor([1.4, -0.2, 1.4, -1.2, -1.2, 0.3])
IMPACT_ENTROPY = torch.tensor([0.1, 2, 0.5, 1.5, 0.05, 1])


def test_the_third_of_the_tokens_with_the_largest_impact_by_hand():
    assert token_weights.impact_tokens(IMPACT_ENTROPY, IMPACT_ADVANTAGES, share=1 / 3).nonzero().squeeze(
        1
    ).tolist() == [2, 3]


def test_the_sign_of_the_advantages_does_not_matter_and_none_is_without_impact():
    found = token_weights.impact_tokens(IMPACT_ENTROPY, IMPACT_ADVANTAGES, share=0.5)
    assert torch.equal(found, token_weights.impact_tokens(IMPACT_ENTROPY, -IMPACT_ADVANTAGES, share=0.5))
    assert token_weights.impact_tokens(IMPACT_ENTROPY, torch.zeros(6), share=0.5).sum() == 0
    assert token_weights.impact_tokens(IMPACT_ENTROPY, torch.zeros(6), share=1.0).sum() == 6


def test_with_all_completions_and_tokens_it_is_grpo_to_the_bit():
    parts = {
        "completions": [{"name": "max_variance", "share": 1.0}],
        "token_weights": [{"name": "impact_tokens", "share": 1.0}],
    }
    config = AlgorithmConfig(**{**load_recipe("d3s"), **parts})
    changed = build_objective(config, completions=8, max_new_tokens=64)
    base = build(recipe="grpo")
    torch.manual_seed(0)
    logprobs = -torch.rand(4, 6)
    old, mask = logprobs + 0.3 * torch.randn(4, 6), torch.rand(4, 6) > 0.2
    advantages, lengths = torch.randn(4), mask.sum(1)
    k = int(mask.sum())
    flat = changed.prepare(torch.rand(k), torch.zeros(k), advantages[:, None].expand(4, 6)[mask], 0)
    prepared = {name: torch.zeros(4, 6).masked_scatter(mask, value) for name, value in flat.items()}
    gradients = []
    for objective, own in ((changed, prepared), (base, {})):
        leaf = logprobs.clone().requires_grad_()
        loss, _ = objective.loss(leaf, old, advantages, mask, lengths, prepared=own)
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 0
