"""Tokens that leave the loss: no term, no gradient, and unchanged weights of the others."""

from __future__ import annotations

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig

MASK = torch.tensor([[True, True, True], [True, True, False]])
LENGTHS = torch.tensor([3.0, 2.0])
TAKING_PART = torch.tensor([[True, False, True], [False, False, True]])
ADVANTAGES = torch.tensor([1.0, -0.5])
RECIPES = ["cpgd", "grpo", "rloo", "gspo", "cispo", "cpgd_entropy", "pg"]


def objective(recipe: str) -> Objective:
    config = AlgorithmConfig(**load_recipe(recipe))
    return build_objective(config, completions=2, max_new_tokens=4)


def gradients(
    recipe: str, taking_part: torch.Tensor | None, shift: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -1.5, 0.0]], requires_grad=True)
    entropy = torch.ones(2, 3, requires_grad=True)
    old = logprobs.detach() + torch.tensor([[0.1, shift, 0.05], [shift, shift, 0.0]])
    loss, _ = objective(recipe).loss(
        logprobs,
        old,
        ADVANTAGES,
        MASK,
        LENGTHS,
        reference_logprobs=old,
        entropy=entropy,
        taking_part=taking_part,
    )
    loss.backward()
    assert logprobs.grad is not None
    return logprobs.grad, torch.zeros(2, 3) if entropy.grad is None else entropy.grad


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_gradient_reaches_a_token_that_left(recipe: str) -> None:
    for grad, everything in zip(gradients(recipe, TAKING_PART), gradients(recipe, None), strict=True):
        assert (grad[~TAKING_PART] == 0).all()
        # The others have the gradient that they have in its company: no weight was given to them.
        torch.testing.assert_close(grad[TAKING_PART], everything[TAKING_PART])


@pytest.mark.parametrize("recipe", ["cpgd", "grpo"])
def test_a_ratio_that_overflows_at_a_token_that_left_does_no_harm(recipe: str) -> None:
    logprob_grad, _ = gradients(recipe, TAKING_PART, shift=-2000.0)
    assert logprob_grad.isfinite().all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_taking_part_is_the_loss_without_a_mask(recipe: str) -> None:
    everything = torch.ones_like(MASK)
    for found, expected in zip(gradients(recipe, everything), gradients(recipe, None), strict=True):
        assert torch.equal(found, expected)


def test_the_denominator_counts_the_tokens_that_left() -> None:
    grad, _ = gradients("pg", TAKING_PART)
    # Of the five tokens two are left, both of the first completion with A = 1.
    torch.testing.assert_close(grad, torch.tensor([[-0.2, 0.0, -0.2], [0.0, 0.0, 0.0]]))
