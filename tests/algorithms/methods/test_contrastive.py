"""CoPG: its worked numbers, its pairs, its fixed point, and the gradient of its surrogate."""

import math

import pytest
import torch

from mm_cpgd.algorithms.methods.contrastive import regularised_differences
from tests.fakes.objectives import build

NAN = float("nan")


def test_the_coefficients_by_hand():
    pair = regularised_differences(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.3, -0.1]]), beta=0.5)
    assert pair[0].tolist() == pytest.approx([0.8, -0.8])
    four = regularised_differences(
        torch.tensor([[1.0, 0, 0, 1]]), torch.tensor([[0.3, -0.1, 0.2, 0]]), beta=0.5
    )
    assert four[0].tolist() == pytest.approx([0.533333, -0.533333, -0.733333, 0.733333], abs=1e-6)


def test_they_are_the_gradient_of_the_pairs_objective():
    """d/dD of dR·D − (β/2)·D², summed over a completion's pairs and divided by their number."""
    rewards = torch.tensor([0.5, 1.0, -1.0, 0.0]).double()
    ratios = torch.tensor([0.2, -0.4, 0.7, 0.1], dtype=torch.float64, requires_grad=True)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    value = sum(
        (rewards[i] - rewards[j]) * (ratios[i] - ratios[j]) - 0.3 / 2 * (ratios[i] - ratios[j]) ** 2
        for i, j in pairs
    )
    (gradient,) = torch.autograd.grad(value, ratios)
    found = regularised_differences(rewards[None], ratios.detach()[None], beta=0.3)
    torch.testing.assert_close(found[0], gradient / 3)


def test_a_constant_on_all_rewards_changes_nothing_and_the_sum_is_0():
    rewards, ratios = torch.rand(3, 5).double(), torch.randn(3, 5).double()
    found = regularised_differences(rewards, ratios, beta=0.1)
    torch.testing.assert_close(regularised_differences(rewards + 7, ratios, beta=0.1), found)
    torch.testing.assert_close(found.sum(1), torch.zeros(3).double())


def test_equal_rewards_still_draw_the_log_ratios_together():
    found = regularised_differences(torch.ones(1, 2), torch.tensor([[0.5, -0.5]]), beta=0.1)
    assert found[0].tolist() == pytest.approx([-0.1, 0.1])


def test_missing_completions_and_single_ones_are_no_pairs():
    rewards = torch.tensor([[1.0, NAN, 0.0], [1.0, NAN, NAN]])
    found = regularised_differences(rewards, torch.zeros(2, 3), beta=0.1)
    assert found.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_gradient_ascent_from_fixed_off_policy_pairs_ends_at_the_optimum():
    """π* ∝ π_ref·exp(R/β) for π_ref = (0.25, 0.75), R = (1, 0), β = 0.5."""
    reference = torch.tensor([0.25, 0.75]).log()
    logits = torch.zeros(2, requires_grad=True)
    for _ in range(400):
        ratios = logits.log_softmax(0) - reference
        weights = regularised_differences(torch.tensor([[1.0, 0.0]]), ratios.detach()[None], beta=0.5)
        (gradient,) = torch.autograd.grad((weights[0] * ratios).sum(), logits)
        logits = (logits + 0.5 * gradient).detach().requires_grad_()
    assert logits.softmax(0).tolist() == pytest.approx([0.711235, 0.288765], abs=1e-4)


def test_the_gradient_of_a_token_is_its_completions_coefficient_over_the_completions():
    objective = build(recipe="copg")
    assert objective.needs_reference
    (part,) = objective.step_parts
    logprobs = torch.full((2, 2), math.log(0.5), requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    loss, _ = objective.loss(
        logprobs,
        logprobs.detach() - 0.3,
        torch.zeros(2),
        mask,
        torch.tensor([2, 1]),
        torch.zeros(2, 2),
        prepared={part.where: torch.tensor([[0.8, 0.8], [-0.8, 9.0]])},
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert gradient.tolist() == [pytest.approx([-0.4, -0.4]), pytest.approx([0.4, 0.0])]
