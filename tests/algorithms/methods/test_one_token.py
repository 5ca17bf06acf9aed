"""One-token rollout: the worked numbers, its expectation, and what it does at the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.inputs.draws import Drawn, Draws
from mm_cpgd.algorithms.methods.one_token import one_token, one_token_exact
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig, PartConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.logprobs import drawn_logprobs

PI = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
OWN = 1
ONE = torch.ones(1, 1, dtype=torch.float64)


def sampled(logits: Tensor, drawn: Sequence[int], beta: float = -0.1) -> Tensor:
    """Loss of one position whose own token is ``OWN``."""
    log = logits.log_softmax(-1)
    tokens = torch.tensor(drawn)
    terms, clipped = one_token(ONE, log[tokens].view(1, 1, -1), (tokens == OWN).view(1, 1, -1), beta=beta)
    assert not clipped.any()
    return -terms.sum()


def exact(logits: Tensor, beta: float = -0.1) -> Tensor:
    log = logits.log_softmax(-1)[OWN].view(1, 1)
    return -one_token_exact(log, torch.zeros_like(log), ONE, beta=beta)[0].sum()


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


def test_the_worked_numbers() -> None:
    logits = PI.log().requires_grad_()
    loss = sampled(logits, [0] * 5 + [1] * 3 + [2] * 2)
    expected = -(3 * math.log(0.3) - 0.1 * (5 * math.log(0.5) + 2 * math.log(0.2))) / 10
    assert loss.item() == pytest.approx(expected, abs=1e-15) == pytest.approx(0.294346, abs=1e-6)
    expectation = torch.tensor([0.165, -0.231, 0.066], dtype=torch.float64)
    torch.testing.assert_close(gradient(loss, logits), expectation, rtol=0, atol=1e-15)
    # The counts are exactly K·π, so that what is drawn is what is expected.
    torch.testing.assert_close(gradient(exact(logits), logits), expectation, rtol=0, atol=1e-15)


@pytest.mark.parametrize("beta", [-0.1, 0.0, -2.0])
def test_the_exact_form_weights_the_likelihoods_gradient_by_the_tokens_probability(beta: float) -> None:
    logits = PI.log().requires_grad_()
    likelihood = gradient(-logits.log_softmax(-1)[OWN], logits)
    torch.testing.assert_close(
        gradient(exact(logits, beta), logits), (1 - beta) * 0.3 * likelihood, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("beta", [-0.1, 0.0])
def test_many_draws_give_the_exact_gradient(beta: float) -> None:
    logits = PI.log().float().unsqueeze(0).requires_grad_()
    uniforms = torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0))
    _, _, drawn, own = drawn_logprobs(logits, nn.Identity(), torch.tensor([OWN]), uniforms)
    loss = -one_token(ONE, drawn.unsqueeze(0), own.unsqueeze(0), beta=beta)[0].sum()
    expected = (1 - beta) * 0.3 * (PI - torch.eye(3, dtype=torch.float64)[OWN])
    torch.testing.assert_close(gradient(loss, logits)[0].double(), expected, rtol=0, atol=1e-2)


def test_draws_at_a_temperature_have_its_distribution() -> None:
    uniforms = (torch.arange(100_000).view(1, -1) + 0.5) / 100_000
    for token, share in enumerate((0.460988, 0.311198, 0.227815)):
        _, _, drawn, own = drawn_logprobs(
            PI.log().unsqueeze(0), nn.Identity(), torch.tensor([token]), uniforms, draw_temperature=1.3
        )
        assert own.double().mean().item() == pytest.approx(share, abs=2e-5)
        # Their log π is at the temperature of the policy.
        assert drawn[own].exp().unique().tolist() == pytest.approx([PI[token].item()])


def test_without_a_hit_only_the_others_are_pushed_down() -> None:
    logits = PI.log().requires_grad_()
    found = gradient(sampled(logits, [0, 0, 2]), logits)
    assert found[0] > 0 > found[OWN]  # the loss falls as the drawn token becomes less likely
    assert gradient(sampled(logits, [0, 0, 2], beta=0.0), logits).abs().max() == 0


def test_a_policy_that_is_certain_of_the_token_has_no_gradient() -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf], dtype=torch.float64).requires_grad_()
    assert sampled(logits, [OWN] * 4).item() == 0
    assert gradient(sampled(logits, [OWN] * 4), logits)[OWN] == 0
    assert gradient(exact(logits), logits)[OWN] == 0


def test_the_advantage_is_a_factor() -> None:
    log = PI.log()[[0, 1, 1]].view(1, 1, 3)
    own = torch.tensor([[[False, True, True]]])
    once, _ = one_token(ONE, log, own)
    torch.testing.assert_close(one_token(-2.5 * ONE, log, own)[0], -2.5 * once)


def build(**options: object) -> Objective:
    surrogate = PartConfig(**{"name": "one_token", **options})
    config = AlgorithmConfig(**{**load_recipe("pg"), "surrogate": surrogate})
    return build_objective(config, completions=2, max_new_tokens=4, iterations=3)


def test_a_reward_for_wrong_tokens_is_refused() -> None:
    with pytest.raises(UserError, match=r"beta = 0\.5 is not possible"):
        build(beta=0.5)


def test_the_objective_says_what_is_to_be_drawn_and_its_temperature_may_be_a_schedule() -> None:
    assert build().draws() == Draws(256, 1.3)
    moving = build(draws=4, temperature={"from": 2.0, "to": 1.0})
    assert [moving.draws(iteration) for iteration in (1, 2, 3)] == [
        Draws(4, 2.0),
        Draws(4, 1.5),
        Draws(4, 1.0),
    ]
    other = AlgorithmConfig(**load_recipe("pg"))
    assert build_objective(other, completions=2, max_new_tokens=4).draws() is None


def test_masked_positions_have_no_influence_on_the_loss() -> None:
    objective = build(draws=2)
    mask = torch.tensor([[True, False]])

    def loss(filler: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        drawn = torch.tensor([[[-1.0, -2.0], [filler, filler]]], requires_grad=True)
        own = torch.tensor([[[True, False], [True, True]]])
        values = torch.zeros(1, 2)
        found, metrics = objective.loss(
            values, values, torch.ones(1), mask, torch.tensor([1]), drawn=Drawn(drawn, own)
        )
        return found, torch.autograd.grad(found, drawn)[0], metrics

    one, slope, metrics = loss(-3.0)
    other, slope_beside_nan, _ = loss(math.nan)
    assert one.item() == other.item() == pytest.approx(0.5 * (1.0 - 0.1 * 2.0))
    torch.testing.assert_close(slope, torch.tensor([[[-0.5, 0.05], [0.0, 0.0]]]))
    assert torch.equal(slope, slope_beside_nan)
    assert metrics["drawn_own"].item() == 0.5
