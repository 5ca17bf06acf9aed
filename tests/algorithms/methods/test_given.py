"""BRPO and BVPO: worked numbers, invariants, and the gradient of the mixed preference loss."""

import math

import pytest
import torch

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.methods.given import brpo, budget_advantages, bvpo, prior_weights
from mm_cpgd.algorithms.methods.group_targets import preference
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from mm_cpgd.errors import UserError

NAN = math.nan


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


UNIFORM = tensor([0.25] * 4)
LAST = tensor([0, 0, 0, 1.0])
SCORES = [[0, 0, 1, 1], [0, 0.5, 0.5, 0]]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (UNIFORM, [[0.125, 0.21875, 0.34375, 0.111607], [-0.125, -0.03125, -0.114583, -0.111607]]),
        (LAST, [[0.5, 0.625, 0.75, 0.446429], [-0.5, -0.375, -0.416667, -0.446429]]),
    ],
)
def test_the_worked_example_of_two_completions(weights, expected):
    found = budget_advantages(tensor(SCORES), weights)
    torch.testing.assert_close(found, tensor(expected), rtol=0, atol=1e-6)


def test_the_priors_sum_to_1():
    budgets = tensor([12, 24, 36, 48])
    assert prior_weights("base", budgets).tolist() == [0, 0, 0, 1]
    assert prior_weights("uniform", budgets).tolist() == [0.25] * 4
    assert prior_weights("linear", budgets).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_one_budget_is_the_groups_mean():
    assert budget_advantages(tensor([[1], [0]]), tensor([1])).tolist() == [[0.5], [-0.5]]


@pytest.mark.parametrize("seed", range(5))
def test_the_first_segments_advantages_sum_to_0_and_equal_scores_have_none(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(6, 4, generator=generator, dtype=torch.float64)
    found = budget_advantages(scores, UNIFORM)
    assert found[:, 0].sum().item() == pytest.approx(0, abs=1e-12)
    order = torch.randperm(6, generator=generator)
    torch.testing.assert_close(budget_advantages(scores[order], UNIFORM), found[order])
    equal = budget_advantages(torch.full((6, 4), 0.7, dtype=torch.float64), UNIFORM)
    assert equal.abs().max().item() == pytest.approx(0, abs=1e-12)


def test_what_a_completion_has_reached_already_is_a_part_of_its_baseline():
    # Both have reached all that they will: the own part of the baseline is all that is left.
    found = budget_advantages(tensor([[1, 1, 1, 1], [0, 0, 0, 0]]), UNIFORM)
    assert found[0].tolist() == pytest.approx([0.5, 0.75 * 0.5 * 3 / 4, 0.5 * 0.5 * 2 / 4, 0.25 * 0.5 / 4])


def test_an_unknown_score_leaves_out_the_segments_that_lead_to_it():
    found = budget_advantages(tensor([[0, NAN, 1, 1], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]), UNIFORM)
    assert found[0, :2].tolist() == [0, 0]
    assert found[0, 2:].abs().min() > 0
    rest = budget_advantages(tensor([[0, 0.5, 0.5, 0], [0, 0, 0, 1]]), UNIFORM)
    torch.testing.assert_close(found[1:, :2], rest[:, :2])


def call(rewards, early, thinking, width=6):
    n = len(rewards)
    base = tensor([[r - sum(rewards) / n] * width for r in rewards])
    budgets = tensor([[2, 4, 6]] * n)
    mask = torch.ones(n, width, dtype=torch.bool)
    prompt_of = torch.zeros(n, dtype=torch.long)
    return brpo(base, tensor(rewards), tensor(early), budgets, tensor(thinking), prompt_of, mask)


def test_tokens_have_the_advantage_of_their_segment_and_the_answer_keeps_its_own():
    found = call([1.0, 0.0], [[0.0, 1.0], [0.0, 0.0]], [5, 3])
    segments = budget_advantages(tensor([[0, 1, 1], [0, 0, 0]]), tensor([1 / 3] * 3))
    expected = [segments[0, s].item() for s in (0, 0, 1, 1, 2)] + [0.5]
    assert found[0].tolist() == pytest.approx(expected)
    # The second thinking ends with its third token: from there on the reward's own advantage.
    assert found[1].tolist() == pytest.approx([segments[1, s].item() for s in (0, 0, 1)] + [-0.5] * 3)


def test_a_thinking_that_ends_before_a_budget_has_its_reward_as_the_score_there():
    short = call([1.0, 0.0], [[0.0, NAN], [0.0, 0.0]], [4, 6])
    whole = call([1.0, 0.0], [[0.0, 1.0], [0.0, 0.0]], [4, 6])
    torch.testing.assert_close(short, whole)


def test_groups_do_not_mix():
    one = call([1.0, 0.0], [[0.0, 1.0], [0.0, 0.0]], [5, 5])
    base = one.new_zeros(4, 6)
    twice = brpo(
        base,
        tensor([1, 0, 5, 5]),
        tensor([[0, 1], [0, 0], [5, 5], [5, 5]]),
        tensor([[2, 4, 6]] * 4),
        tensor([5] * 4),
        torch.tensor([0, 0, 1, 1]),
        torch.ones(4, 6, dtype=torch.bool),
    )
    torch.testing.assert_close(twice[:2, :5], one[:, :5])
    assert twice[2:].abs().max().item() == pytest.approx(0, abs=1e-12)


# Two completions with a thought, margins 2 and 0, and two after an empty one, margins −1 and 0.
REWARDS = tensor([1, 0, 1, 0])
OLD = tensor([[2.0], [0.0], [-1.0], [0.0]])
EMPTY = tensor([0, 0, 1, 1])
ALL = torch.ones(4, 1, dtype=torch.bool)
PROMPT = torch.zeros(4, dtype=torch.long)


def mixed(share, old=OLD):
    reference = torch.zeros_like(old)
    return bvpo(REWARDS, old, reference, ALL, PROMPT, EMPTY, beta=0.1, trace_share=share)[:, 0]


def test_the_weights_of_the_pairs_worked_out_by_hand():
    # β·σ(−β·m) is 0.045017 at m = 2 and 0.052498 at m = −1; 4 completions share the mean.
    expected = tensor([0.045017, -0.045017, 0.052498, -0.052498]) * 4 * 0.5
    torch.testing.assert_close(mixed(0.5), expected, rtol=0, atol=4e-6)


def test_the_gradient_is_that_of_the_mixed_dpo_losses():
    values = OLD[:, 0].clone().requires_grad_()
    traces = -torch.nn.functional.logsigmoid(0.1 * (values[0] - values[1]))
    empty = -torch.nn.functional.logsigmoid(0.1 * (values[2] - values[3]))
    assert (traces.item(), empty.item()) == pytest.approx((0.598139, 0.744397), abs=1e-6)
    loss = 0.3 * traces + 0.7 * empty
    (gradient,) = torch.autograd.grad(loss, values)
    torch.testing.assert_close(-mixed(0.3) / 4, gradient, rtol=0, atol=1e-12)


def test_the_ends_of_the_mixture_are_the_preferences_of_one_half():
    def half(rows):
        return preference(REWARDS[rows], OLD[rows], OLD[rows] * 0, ALL[rows], PROMPT[rows], beta=0.1)[:, 0]

    # The mean is over four completions in place of two.
    torch.testing.assert_close(mixed(1.0), torch.cat([2 * half([0, 1]), tensor([0, 0])]))
    torch.testing.assert_close(mixed(0.0), torch.cat([tensor([0, 0]), 2 * half([2, 3])]))


def test_a_half_without_a_pair_has_no_gradient():
    reference = torch.zeros_like(OLD)
    found = bvpo(tensor([1, 1, 1, 0]), OLD, reference, ALL, PROMPT, EMPTY)[:, 0]
    assert found[:2].tolist() == [0, 0]
    assert found[2] > 0 > found[3]


@pytest.mark.parametrize(("name", "key"), [("brpo", "early_answers"), ("bvpo", "empty_thought")])
def test_a_part_whose_completions_are_not_sampled_is_refused(name, key):
    config = AlgorithmConfig(**{**load_recipe(name), key: None})
    with pytest.raises(UserError, match=rf"{name} needs algorithm\.{key}, which is null"):
        build_objective(config, completions=8, max_new_tokens=64)
