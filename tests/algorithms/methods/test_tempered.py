"""AEPO: temperature and number by entropy, and what imitation of tempered samples does to the entropy."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_cpgd.algorithms.methods.tempered import LastEntropy, aepo, imitated

PI = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
NAN = float("nan")


def tempered(policy, temperature):
    return (policy.log() / temperature).softmax(0)


def entropy(policy):
    return float(-(policy * policy.log()).sum())


def after(policy, temperature, step=0.1):
    """The policy after one expected step of REINFORCE with R = 1 on samples of another temperature."""
    return (policy.log() + step * (tempered(policy, temperature) - policy)).softmax(0)


@pytest.mark.parametrize(
    ("seen", "expected"), [(0.3, (1.2, 60)), (0.5, (1.2, 60)), (0.7, (0.8, 30)), (0.0, (1.2, 60))]
)
def test_temperature_and_number_by_hand(seen, expected):
    assert aepo(seen, 4096) == expected


def test_small_batches_imitate_at_least_one():
    assert aepo(0.0, 16) == (1.2, 1)
    assert aepo(1.0, 16) == (0.8, 1)
    assert aepo(1.0, 64, most=0.25) == (0.8, 8)


def test_distributions_and_entropies_by_hand():
    assert entropy(PI) == pytest.approx(0.801819, abs=1e-6)
    hot, cool = tempered(PI, 1.2), tempered(PI, 0.8)
    assert hot.tolist() == pytest.approx([0.645312, 0.227185, 0.127503], abs=1e-6)
    assert cool.tolist() == pytest.approx([0.771179, 0.161091, 0.067730], abs=1e-6)
    assert [entropy(hot), entropy(cool)] == pytest.approx([0.881954, 0.676841], abs=1e-6)
    steps = [entropy(after(PI, temperature)) for temperature in (1.2, 0.8, 1.0)]
    assert steps == pytest.approx([0.804372, 0.798483, 0.801819], abs=1e-6)


@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=6).filter(lambda own: max(own) - min(own) > 0.1),
    st.sampled_from([0.5, 0.8, 1.2, 2.0]),
)
def test_the_entropy_moves_to_the_side_of_the_temperature(logits, temperature):
    policy = torch.tensor(logits, dtype=torch.float64).softmax(0)
    change = entropy(after(policy, temperature, 1e-3)) - entropy(policy)
    assert math.copysign(1, change) == math.copysign(1, temperature - 1)


def test_the_first_right_completions_above_their_groups_mean_are_imitated():
    rewards = torch.tensor([[1.5, 1.0, 0.5], [1.5, 1.5, 1.5], [NAN, 1.0, 0.0], [0.5, 0.0, 0.0]])
    accuracy = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [NAN, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert imitated(rewards, accuracy, 9).nonzero().tolist() == [[0, 0], [2, 1]]
    assert imitated(rewards, accuracy, 1).nonzero().tolist() == [[0, 0]]
    # A group whose equal rewards have a mean that rounds down has no signal.
    equal = torch.full((1, 3), 1.1, dtype=torch.float64)
    assert not imitated(equal, torch.ones(1, 3), 3).any()


def test_the_state_is_the_last_steps_entropy_and_survives_a_checkpoint():
    state, other = LastEntropy(), LastEntropy()
    assert state.value == 0.0
    for value in (0.4, 0.7, NAN):
        state.observe({"entropy": value})
    state.observe({})
    other.load_state_dict(state.state_dict())
    assert other.value == 0.7
