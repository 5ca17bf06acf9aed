"""D³S's choice of tokens, and its objective against the base's."""

import torch

from mm_cpgd.algorithms.objective import build_objective
from mm_cpgd.algorithms.token_weights import impact_tokens
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from tests.fakes.objectives import build

ADVANTAGES = torch.tensor([1.4, -0.2, 1.4, -1.2, -1.2, 0.3])
ENTROPY = torch.tensor([0.1, 2, 0.5, 1.5, 0.05, 1])


def test_the_third_of_the_tokens_with_the_largest_impact_by_hand():
    assert impact_tokens(ENTROPY, ADVANTAGES, share=1 / 3).nonzero().squeeze(1).tolist() == [2, 3]


def test_the_sign_of_the_advantages_does_not_matter_and_none_is_without_impact():
    found = impact_tokens(ENTROPY, ADVANTAGES, share=0.5)
    assert torch.equal(found, impact_tokens(ENTROPY, -ADVANTAGES, share=0.5))
    assert impact_tokens(ENTROPY, torch.zeros(6), share=0.5).sum() == 0
    assert impact_tokens(ENTROPY, torch.zeros(6), share=1.0).sum() == 6


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
