"""Properties of all advantages: order, unscored completions, constant groups, and scale."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_cpgd.algorithms import advantages

PARTS = {
    "cpgd_equal": lambda r: advantages.cpgd(r, weight="equal"),
    "cpgd_std": lambda r: advantages.cpgd(r, weight="std"),
    "cpgd_clip_filter": lambda r: advantages.cpgd(r, weight="clip_filter"),
    "grpo": advantages.grpo,
    "rloo": advantages.rloo,
    "group_mean": advantages.group_mean,
    "reinforce_pp": advantages.reinforce_pp,
    "reinforce_pp_group": lambda r: advantages.reinforce_pp(r, baseline="group"),
    "reinforce_pp_tokens": lambda r: advantages.reinforce_pp(
        r, 1 + r.nan_to_num(0.0).square(), over="tokens"
    ),
    "bnpo": lambda r: advantages.bnpo(r, low=-2.0, high=2.0),
    # Its rewards are not negative; those below are at least −1.
    "maxrl": lambda r: advantages.maxrl(r + 1),
}
GROUP_PARTS = {name: part for name, part in PARTS.items() if not name.startswith("reinforce_pp")}
REWARDS = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5, float("nan")])
few_examples = settings(max_examples=40, deadline=None)


@st.composite
def rewards_of(draw):
    prompts, completions = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    rows = st.lists(REWARDS, min_size=completions, max_size=completions)
    return torch.tensor(draw(st.lists(rows, min_size=prompts, max_size=prompts)), dtype=torch.float64)


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@few_examples
@given(rewards=rewards_of(), part=st.sampled_from(sorted(PARTS)), random=st.randoms(use_true_random=False))
def test_a_permutation_of_the_group_permutes_the_advantages(rewards, part, random):
    order = list(range(rewards.shape[1]))
    random.shuffle(order)
    assert_close(PARTS[part](rewards[:, order]), PARTS[part](rewards)[:, order])


@few_examples
@given(rewards=rewards_of(), part=st.sampled_from(sorted(PARTS)), random=st.randoms(use_true_random=False))
def test_a_permutation_of_the_prompts_permutes_the_advantages(rewards, part, random):
    order = list(range(rewards.shape[0]))
    random.shuffle(order)
    assert_close(PARTS[part](rewards[order]), PARTS[part](rewards)[order])


@few_examples
@given(rewards=rewards_of(), part=st.sampled_from(sorted(PARTS)))
def test_unscored_completions_have_advantage_0_and_the_others_a_finite_one(rewards, part):
    found = PARTS[part](rewards)
    assert found.isfinite().all()
    assert (found[rewards.isnan()] == 0).all()


@few_examples
@given(rewards=rewards_of(), part=st.sampled_from(sorted(GROUP_PARTS)))
def test_an_additional_unscored_completion_changes_nothing(rewards, part):
    unscored = torch.full((rewards.shape[0], 1), float("nan"), dtype=torch.float64)
    found = GROUP_PARTS[part](torch.cat([rewards, unscored], dim=1))
    assert_close(found[:, :-1], GROUP_PARTS[part](rewards))


@few_examples
@given(rewards=rewards_of(), part=st.sampled_from(sorted(GROUP_PARTS)))
def test_the_advantages_of_a_group_sum_to_0_and_are_exactly_0_without_a_signal(rewards, part):
    found = GROUP_PARTS[part](rewards)
    assert_close(found.sum(dim=1), torch.zeros(len(rewards), dtype=torch.float64))
    for row, advantage in zip(rewards, found, strict=True):
        if len(set(row[~row.isnan()].tolist())) < 2:
            assert (advantage == 0).all()


@few_examples
@given(rewards=rewards_of(), shift=st.sampled_from([-3.0, 0.25, 10.0]))
def test_a_shift_of_all_rewards_changes_no_advantage(rewards, shift):
    for name in sorted(set(PARTS) - {"bnpo", "maxrl", "reinforce_pp_tokens"}):
        torch.testing.assert_close(PARTS[name](rewards + shift), PARTS[name](rewards), rtol=1e-6, atol=1e-6)
