"""Advantages of several rewards and of lengths: worked numbers, an independent formula, invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_cpgd.algorithms import advantages
from mm_cpgd.algorithms.methods.many_rewards import gdpo, scale_rl

few_examples = settings(max_examples=40, deadline=None)
NAN = float("nan")


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def of_rules(components, weights, shaping=None, unscored=()):
    """GDPO's advantages, the rewards being the weighted sum of the components (P, G, R)."""
    components, weights = tensor(components), tensor(weights)
    added = torch.zeros(components.shape[:2], dtype=torch.float64) if shaping is None else tensor(shaping)
    rewards = components.nan_to_num(0.0) @ weights + added
    for place in unscored:
        rewards[place] = NAN
    return gdpo(rewards, components, weights, added, eps=1e-12)


def test_gdpo_tells_better_by_one_rule_from_better_by_both():
    # Within each prompt a rule's two scores become ±0.707107; sums ±1.414214 and ±0.707107, whose deviation
    # over the batch is √(5/3). GRPO gives ±0.707107 to both prompts.
    both_rules, one_rule = [[1, 1], [0, 0]], [[1, 0], [0, 0]]
    found = of_rules([both_rules, one_rule], [1.0, 1.0])
    torch.testing.assert_close(
        found, tensor([[1.095445, -1.095445], [0.547723, -0.547723]]), rtol=0, atol=1e-6
    )
    sums = tensor([[2, 0], [1, 0]])
    assert advantages.grpo(sums)[0].tolist() == pytest.approx(advantages.grpo(sums)[1].tolist(), abs=1e-5)


def test_gdpo_of_a_single_rule_is_grpo_by_the_batchs_deviation():
    scores = tensor([[1, 0, 0, 0], [1, 1, 0, 0]])
    grpo = advantages.grpo(scores, eps=1e-12)
    found = of_rules(scores[:, :, None].tolist(), [0.5])
    torch.testing.assert_close(found, grpo / grpo.flatten().std(), rtol=1e-9, atol=1e-9)


scores = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=24, max_size=24)


@few_examples
@given(values=scores, added=st.sampled_from([0.0, -0.5]))
def test_gdpo_equals_trls_formula(values, added):
    # As in TRL's normalize_then_sum, which subtracts the batch's mean: here it is 0.
    components = np.array(values).reshape(3, 4, 2)
    weights = np.array([1.0, 0.5])
    shaping = np.zeros((3, 4))
    shaping[0, 0] = added
    every = np.concatenate([components, shaping[:, :, None]], axis=2)
    spread = every.std(axis=1, ddof=1, keepdims=True)
    total = ((every - every.mean(axis=1, keepdims=True)) / (spread + 1e-9)) @ np.append(weights, 1.0)
    expected = (total - total.mean()) / (total.std(ddof=1) + 1e-12)
    found = of_rules(components.tolist(), weights.tolist(), shaping.tolist())
    np.testing.assert_allclose(found.numpy(), expected if total.std() > 1e-6 else 0, rtol=0, atol=1e-6)


def test_gdpo_leaves_unscored_completions_out():
    found = of_rules([[[1, 0], [0, 0], [NAN, NAN]]], [1.0, 1.0], unscored=[(0, 2)])
    assert found[0, 2].item() == 0.0
    assert found[0, :2].tolist() == pytest.approx(of_rules([[[1, 0], [0, 0]]], [1.0, 1.0])[0].tolist())


def test_scale_rl_worked_out_by_hand():
    # R − mean = ±0.5 in both prompts: deviation √(1/3). Prompts of 10 and 30 tokens, mean 20: 2 and 2/3.
    found = scale_rl(tensor([[1, 0], [0, 1]]), tensor([[4, 6], [20, 10]]), eps=0.0 + 1e-12)
    base = 0.5 / (1 / 3) ** 0.5
    torch.testing.assert_close(
        found, tensor([[2 * base, -2 * base], [-2 / 3 * base, 2 / 3 * base]]), rtol=0, atol=1e-9
    )


@few_examples
@given(
    rewards=st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=12, max_size=12),
    lengths=st.lists(st.integers(1, 50), min_size=12, max_size=12),
)
def test_scale_rl_with_a_token_mean_is_the_mean_over_prompts_of_their_token_means(rewards, lengths):
    r, n = tensor(rewards).reshape(3, 4), tensor(lengths).reshape(3, 4)
    found = scale_rl(r, n)
    usable = ~r.isnan()
    normalised = advantages.reinforce_pp(r, baseline="group")
    here = (found * n * usable).sum() / (n * usable).sum().clamp(min=1)
    tokens = (n * usable).sum(1)
    by_prompt = (normalised * n * usable).sum(1) / tokens.clamp(min=1)
    expected = by_prompt.sum() / (tokens > 0).sum().clamp(min=1)
    torch.testing.assert_close(here, expected, rtol=1e-6, atol=1e-6)
