"""Advantages against values worked out by hand and against numpy."""

import itertools
import math

import numpy as np
import pytest
import torch

from mm_cpgd.algorithms import advantages
from mm_cpgd.errors import UserError

NAN = float("nan")
MIXED = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.5, 0.5, 0.5, 1.5], [0.0, 0.0, 0.0, 0.0]]
EVERY = {
    "equal": lambda r: advantages.cpgd(r, weight="equal"),
    "std": lambda r: advantages.cpgd(r, weight="std"),
    "clip_filter": lambda r: advantages.cpgd(r, weight="clip_filter"),
    "grpo": advantages.grpo,
    "rloo": advantages.rloo,
    "group_mean": advantages.group_mean,
    "reinforce_pp": advantages.reinforce_pp,
    "bnpo": lambda r: advantages.bnpo(r, low=-1.0, high=4.0),
    "reinforce_pp_group": lambda r: advantages.reinforce_pp(r, baseline="group"),
}
every_advantage = pytest.mark.parametrize("advantage", EVERY.values(), ids=EVERY.keys())
group_advantage = pytest.mark.parametrize("name", [name for name in EVERY if name != "reinforce_pp"])


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def assert_equal(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, tensor(expected), rtol=0, atol=tolerance)


def test_equal_weight_is_reward_less_group_mean():
    assert_equal(
        EVERY["equal"](tensor([[1, 0, 0, 0], [2, 0, 0, 2]])), [[0.75, -0.25, -0.25, -0.25], [1, -1, -1, 1]]
    )


def test_std_weight_divides_by_the_groups_unbiased_deviation_plus_1e_6():
    # Deviations of [1, 0, 0, 0]: 0.75² + 3·0.25² = 0.75, over n − 1 = 3: variance 0.25, deviation 0.5.
    scale = 0.5 + 1e-6
    assert_equal(EVERY["std"](tensor([[1, 0, 0, 0]])), [[0.75 / scale] + [-0.25 / scale] * 3])


def test_statistics_are_of_the_group_and_not_of_the_batch():
    # The second group's scale must not touch the first: seen in public code, moments over the whole batch.
    alone = EVERY["std"](tensor([[1, 0, 0, 0]]))
    beside = EVERY["std"](tensor([[1, 0, 0, 0], [100, 50, 0, 7]]))
    assert torch.equal(alone[0], beside[0])


def test_maxrl_divides_by_the_groups_mean():
    # Two of eight are right: G/K − 1 = 3 for them, −1 for the others.
    found = advantages.maxrl(tensor([[1, 1, 0, 0, 0, 0, 0, 0], [0] * 8, [1] * 8]), eps=1e-12)
    assert_equal(found, [[3, 3] + [-1] * 6, [0] * 8, [0] * 8], tolerance=1e-10)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_maxrl_on_average_is_the_gradient_of_the_expanded_log_likelihood(p):
    # Right with probability p: the scores are 1/p and −1/(1 − p) times ∇p. All outcomes of G = 4, exactly.
    size = 4
    total = 0.0
    for outcome in itertools.product([1.0, 0.0], repeat=size):
        chance = math.prod(p if right else 1 - p for right in outcome)
        scores = [1 / p if right else -1 / (1 - p) for right in outcome]
        found = advantages.maxrl(tensor([outcome]), eps=1e-12)[0].tolist()
        total += chance * sum(a * s for a, s in zip(found, scores, strict=True)) / size
    # ln p = −Σ (1 − p)^k / k over k = 1, 2, …; its first G − 1 terms have this derivative.
    assert total == pytest.approx(sum((1 - p) ** (k - 1) for k in range(1, size)), abs=1e-9)


def test_maxrl_refuses_negative_rewards():
    with pytest.raises(UserError, match=r"a reward of -0\.5 is negative"):
        advantages.maxrl(tensor([[1, -0.5]]))


@every_advantage
def test_advantages_are_not_all_zero_when_rewards_differ(advantage):
    # Seen in public code: a scalar reward summed over the wrong axis, hence zero everywhere.
    assert advantage(tensor([[1, 0, 0, 0]])).abs().max() > 0.1


def test_clip_filter_weight_is_prompts_over_prompts_with_signal():
    # 4 prompts, 2 of them with a signal: ω = 2. Completions over prompts would give 16/2, hence the cap.
    actual = EVERY["clip_filter"](tensor(MIXED))
    assert_equal(actual, [[1.5, -0.5, -0.5, -0.5], [0] * 4, [1, -1, -1, 1], [0] * 4])


def test_clip_filter_weight_is_one_when_every_group_has_signal():
    assert_equal(EVERY["clip_filter"](tensor([[1, 0, 0, 0], [0, 1, 0, 0]]))[0], [0.75, -0.25, -0.25, -0.25])


def test_clip_filter_weight_stops_at_the_cap():
    rewards = tensor([[1, 0]] + [[0, 0]] * 9)
    assert_equal(advantages.cpgd(rewards, weight="clip_filter", cap=3.0)[0], [1.5, -1.5])


def test_clip_filter_weight_is_finite_without_any_signal():
    assert_equal(EVERY["clip_filter"](tensor([[1, 1], [0, 0]])), [[0, 0], [0, 0]])


def test_clip_filter_does_not_count_prompts_without_any_score():
    assert_equal(EVERY["clip_filter"](tensor([[1, 0], [NAN, NAN]]))[0], [0.5, -0.5])


def test_grpo_equals_cpgd_with_std_weight():
    assert torch.equal(EVERY["grpo"](tensor(MIXED)), EVERY["std"](tensor(MIXED)))


def test_rloo_subtracts_the_mean_of_the_others():
    assert_equal(EVERY["rloo"](tensor([[3, 1, 2]])), [[3 - 1.5, 1 - 2.5, 2 - 2]])


def test_rloo_leaves_unscored_completions_out_of_the_others():
    assert_equal(EVERY["rloo"](tensor([[3, NAN, 1, 2]])), [[3 - 1.5, 0, 1 - 2.5, 0]])


def test_reinforce_pp_normalises_over_the_whole_batch():
    rewards = np.array(MIXED)
    expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    assert_equal(EVERY["reinforce_pp"](tensor(MIXED)), expected.tolist())


def test_reinforce_pp_with_group_baseline_normalises_what_is_left_of_the_group_mean():
    centred = np.array(MIXED) - np.array(MIXED).mean(axis=1, keepdims=True)
    expected = centred / (centred.std(ddof=1) + 1e-6)
    assert_equal(EVERY["reinforce_pp_group"](tensor(MIXED)), expected.tolist())


def test_reinforce_pp_works_with_one_completion_per_prompt():
    # [1, 0]: mean 0.5, unbiased deviation √0.5.
    expected = 0.5 / (math.sqrt(0.5) + 1e-6)
    assert_equal(EVERY["reinforce_pp"](tensor([[1], [0]])), [[expected], [-expected]])


@every_advantage
def test_a_permutation_of_the_group_permutes_the_advantages(advantage):
    rewards = tensor([[1.5, 0.0, 0.5, NAN], [0.0, 1.0, 0.25, 0.0]])
    plain = advantage(rewards)
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(
            advantage(rewards[:, list(order)]), plain[:, list(order)], rtol=0, atol=1e-12
        )


@every_advantage
def test_an_unscored_completion_has_advantage_zero_and_changes_nothing_else(advantage):
    with_gap = advantage(tensor([[1, NAN, 0, 0], [0, NAN, 0, 1]]))
    without = advantage(tensor([[1, 0, 0], [0, 0, 1]]))
    assert torch.equal(with_gap[:, 1], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(with_gap[:, [0, 2, 3]], without, rtol=0, atol=1e-12)


@every_advantage
def test_nothing_scored_at_all_gives_zeros(advantage):
    assert_equal(advantage(tensor([[NAN, NAN], [NAN, NAN]])), [[0, 0], [0, 0]])


@group_advantage
def test_a_lone_scored_completion_has_advantage_zero(name):
    assert_equal(EVERY[name](tensor([[1, NAN, NAN], [NAN] * 3])), [[0, 0, 0], [0, 0, 0]])


@group_advantage
def test_equal_rewards_give_exactly_zero_in_float32(name):
    # The float32 mean of seven times 0.1 is not 0.1; divided by eps the rounding would reach 0.01.
    rewards = torch.full((2, 7), 0.1)
    assert torch.equal(EVERY[name](rewards), torch.zeros(2, 7))


@group_advantage
def test_advantages_of_a_group_sum_to_zero(name):
    torch.testing.assert_close(
        EVERY[name](tensor(MIXED)).sum(dim=1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12
    )


def bnpo_by_the_paper(rewards, low=0.0, high=1.0):
    """The paper's quotient with numpy's moments and Python's gamma function."""
    rates = (np.array(rewards) - low) / (high - low)
    p = rates.mean(axis=1)
    size = p.mean() * (1 - p.mean()) / p.var(ddof=1) - 1
    alpha, beta = max(1, 1 + size * p.mean() / 3), max(1, 1 + size * (1 - p.mean()) / 3)
    norm = math.gamma(alpha) * math.gamma(beta) / math.gamma(alpha + beta)
    density = p ** (alpha - 1) * (1 - p) ** (beta - 1) / norm
    return ((rates - p[:, None]) / density[:, None]).tolist()


def test_bnpo_divides_by_the_density_of_the_fitted_beta_distribution():
    rewards = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    # Success rates 1/4, 1/2, 3/4: mean 1/2, variance 1/16, a = b = (1/4 : 1/16 − 1)/2 = 3/2, α = β = 3/2. Its
    # density is 8/π·√(p(1 − p)): GRPO's deviation up to a factor.
    scale = [math.pi / 8 / math.sqrt(p * (1 - p)) for p in (0.25, 0.5, 0.75)]
    expected = [
        [0.75 * scale[0]] + [-0.25 * scale[0]] * 3,
        [0.5 * scale[1]] * 2 + [-0.5 * scale[1]] * 2,
        [0.25 * scale[2]] * 3 + [-0.75 * scale[2]],
    ]
    assert_equal(advantages.bnpo(tensor(rewards)), expected)
    assert_equal(advantages.bnpo(tensor(rewards)), bnpo_by_the_paper(rewards))


def test_bnpo_of_uneven_success_rates_equals_the_paper():
    rewards = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert_equal(advantages.bnpo(tensor(rewards)), bnpo_by_the_paper(rewards))


def test_bnpo_with_rates_that_do_not_vary_is_the_plain_group_mean():
    rewards = tensor([[1, 0, 0, 0], [0, 0, 1, 0]])
    assert_equal(advantages.bnpo(rewards), advantages.group_mean(rewards).tolist())


def test_bnpo_of_rates_at_both_ends_is_the_plain_group_mean():
    # Rates 0, 1 and 1/2: variance 1/4, the largest there is: a = b = 0 and α = β = 1.
    rewards = tensor([[0, 0], [1, 1], [1, 0]])
    assert_equal(advantages.bnpo(rewards), [[0, 0], [0, 0], [0.5, -0.5]])


def test_bnpo_takes_rewards_of_another_range_by_their_ends():
    rewards = [[1.5, 0.5, 0, 0], [1.5, 1.5, 0.5, 0], [0.5, 0, 0, 0]]
    actual = advantages.bnpo(tensor(rewards), low=0.0, high=1.5)
    assert_equal(actual, bnpo_by_the_paper(rewards, 0.0, 1.5))


def test_bnpo_refuses_rewards_outside_of_its_range():
    with pytest.raises(UserError, match=r"rewards from 0 to 1\.5 do not lie in low = 0 to high = 1"):
        advantages.bnpo(tensor([[1.5, 0.0]]))
