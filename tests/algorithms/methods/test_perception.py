"""Parts that compare pictures: hand-worked numbers, closed-form gradients, invariants."""

from __future__ import annotations

import math

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.methods import perception
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig

LN2 = math.log(2)
# Two completions of 5 and 2 tokens; x = log π − log π_blind in multiples of ln 2.
OLD = torch.full((7,), -1.0, dtype=torch.float64)
X = LN2 * torch.tensor([0.0, 1.0, -1.0, 2.0, 0.0, 0.0, 1.0], dtype=torch.float64)
BLIND = OLD - X
COMPLETION = torch.tensor([0, 0, 0, 0, 0, 1, 1])
# e^−x − 1 + x for x of 0, ln 2, −ln 2, 2 ln 2.
K1, K_1, K2 = 0.5 - 1 + LN2, 2 - 1 - LN2, 0.25 - 1 + 2 * LN2


def test_the_dependence_of_a_token_is_k3_and_bounded():
    found = perception.visual_dependence(OLD, BLIND)
    torch.testing.assert_close(
        found, torch.tensor([0, K1, K_1, K2, 0, 0, K1], dtype=torch.float64), rtol=0, atol=1e-12
    )
    far = torch.tensor([40.0, -40.0])
    assert perception.visual_dependence(far, torch.zeros(2)).tolist() == [10.0, 10.0]


def test_implicit_perception_is_the_negative_estimate_with_its_gradient():
    x = torch.tensor([LN2, -LN2, -3.0], dtype=torch.float64, requires_grad=True)
    found = perception.implicit_perception(x, torch.zeros(3), coefficient=0.5)
    assert found.tolist() == pytest.approx([-0.5 * K1, -0.5 * K_1, -0.5 * 10])
    found.sum().backward()
    # −γ·(1 − e^−x); beyond the cap (e³ − 1 − 3 > 10) nothing.
    assert x.grad.tolist() == pytest.approx([-0.5 * 0.5, -0.5 * (1 - 2), 0.0])


def test_the_gradient_reaches_the_blind_policy_only_if_asked():
    for asked in (False, True):
        logprobs = torch.tensor([-1.0], requires_grad=True)
        blind = torch.tensor([-1.0 - LN2], requires_grad=True)
        ratio = logprobs - blind.detach()
        perception.implicit_perception(ratio, blind, coefficient=1.0, blind_gradient=asked).sum().backward()
        assert logprobs.grad.item() == pytest.approx(-0.5)
        if asked:
            assert blind.grad.item() == pytest.approx(0.5)
        else:
            assert blind.grad is None


def test_vppo_takes_the_share_of_each_completion_that_depends_most():
    # ⌈0.4·5⌉ = 2 tokens of the first, ⌈0.4·2⌉ = 1 of the second.
    found = perception.vppo_tokens(OLD, BLIND, COMPLETION, share=0.4)
    assert found.tolist() == [0, 0, 1, 1, 0, 0, 1]
    # Of equal estimates the earlier token.
    assert perception.vppo_tokens(OLD, OLD, COMPLETION, share=0.4).tolist() == [1, 1, 0, 0, 0, 1, 0]


def test_vppo_scales_completions_by_their_mean_dependence():
    # Three completions of one token with k = 0, K1, K2: n = 0, K1/K2, 1.
    old, blind = OLD[:3], OLD[:3] - X[[0, 1, 3]]
    found = perception.vppo_completions(old, blind, torch.arange(3), smallest=0.9)
    mean = (K1 / K2 + 1) / 3
    assert found.tolist() == pytest.approx([0.9, 0.9 + 0.1 * K1 / K2 / mean, 0.9 + 0.1 / mean])
    assert perception.vppo_completions(old, old, torch.arange(3)).tolist() == [1, 1, 1]


def test_pgpo_moves_weight_to_dependent_tokens_and_keeps_the_sum():
    found = perception.pgpo(OLD, BLIND, COMPLETION, threshold=0.4, boost=2.0)
    scaled = [math.log1p(k) / math.log1p(K2) for k in (0, K1, K_1, K2, 0)]
    raw = [i / 0.4 if i < 0.4 else 1 + 2 * (i - 0.4) / 0.6 for i in scaled]
    expected = [5 * one / sum(raw) for one in raw]
    assert found[:5].tolist() == pytest.approx(expected)
    # I = 0 and 1: weights 0 and 3, scaled to the sum 2.
    assert found[5:].tolist() == pytest.approx([0, 2])
    assert perception.pgpo(OLD, OLD, COMPLETION).tolist() == [1] * 7


@pytest.mark.parametrize("part", ["vppo_tokens", "vppo_completions", "pgpo"])
def test_the_order_and_the_numbers_of_completions_change_no_weight(part):
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([7, 3, 12, 1, 9])
    of = torch.arange(5).repeat_interleave(lengths)
    old, blind = -torch.rand(2, len(of), generator=generator, dtype=torch.float64)
    weigh = getattr(perception, part)
    plain = weigh(old, blind, of)
    # Whole completions in another order, with other numbers, as several processes gather them.
    blocks = [torch.arange(len(of))[of == number] for number in (3, 0, 4, 2, 1)]
    order = torch.cat(blocks)
    renamed = torch.tensor([8, 90, 2, 31, 5])[of]
    torch.testing.assert_close(weigh(old[order], blind[order], renamed[order]), plain[order])
    sums = torch.zeros(5, dtype=torch.float64).index_add(0, of, plain)
    if part == "pgpo":
        torch.testing.assert_close(sums, lengths.double())
    elif part == "vppo_completions":
        assert float((sums / lengths).mean()) == pytest.approx(1)
        assert float(plain.min()) == pytest.approx(0.9)
    else:
        assert sums.tolist() == [3, 2, 5, 1, 4]


@pytest.mark.parametrize("part", ["vppo_tokens", "vppo_completions", "pgpo"])
def test_a_mini_batch_without_tokens_has_no_weights(part):
    nothing = torch.zeros(0)
    assert getattr(perception, part)(nothing, nothing, nothing.long()).numel() == 0


def objective(recipe: str) -> Objective:
    config = AlgorithmConfig(**load_recipe(recipe))
    return build_objective(config, completions=2, max_new_tokens=8)


@pytest.mark.parametrize(
    ("recipe", "blind", "fixed", "live"),
    [
        ("grpo", False, False, False),
        ("papo", True, True, False),
        ("papo_both", True, False, True),
        ("vppo", True, True, False),
        ("pgpo", True, True, False),
    ],
)
def test_a_recipe_asks_for_the_passes_that_it_needs_and_no_others(recipe, blind, fixed, live):
    made = objective(recipe)
    needs = made.blind
    assert (needs.compares, needs.fixed, needs.gradient) == (blind, fixed, live)


def test_a_step_of_papo_is_its_formula_by_hand():
    made = objective("papo")
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -9.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    entropy = torch.tensor([[0.5, 0.25], [0.75, 7.0]])
    blind = torch.tensor([[-1 - LN2, -2 + LN2], [-0.5, float("nan")]])
    loss, metrics = made.loss(
        logprobs, logprobs.detach(), torch.tensor([1.0, -1.0]), mask, torch.tensor([2, 1]),
        entropy=entropy, blind_logprobs=blind,
    )  # fmt: skip
    # Three tokens; ratios are 1: advantages 1, 1, −1.
    penalty = 0.03 * 1.5 - 0.01 * (K1 + K_1)
    assert loss.item() == pytest.approx((penalty - 1) / 3, abs=1e-6)
    assert metrics["visual_kl"].item() == pytest.approx((K1 + K_1) / 3, abs=1e-6)
    loss.backward()
    # −A·r − γ·(1 − e^−x), over three tokens.
    expected = [(-1 - 0.01 * 0.5) / 3, (-1 + 0.01) / 3, 1 / 3, 0.0]
    assert logprobs.grad.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_part_without_its_log_probabilities_is_an_error():
    zeros, ones = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="needs blind_logprobs"):
        objective("papo").loss(zeros, zeros, torch.ones(1), ones, torch.tensor([2]), entropy=zeros)
