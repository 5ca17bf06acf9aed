"""Optimal token baseline and f-DPG: worked numbers, least variance, and their limits."""

import math

import pytest
import torch

from mm_cpgd.algorithms.methods.group_targets import (
    divergence_slope,
    f_divergence,
    optimal_baseline,
    preference,
)
from tests.fakes.objectives import build, message

LN = math.log


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def baseline(rewards, probabilities, entropies, lengths, prompts=None, **options):
    """Advantages (N, T) of completions that are given by the probabilities of their tokens."""
    mask = torch.arange(len(probabilities[0])) < torch.tensor(lengths)[:, None]
    prompt_of = torch.tensor(prompts or [0] * len(rewards))
    logprobs = tensor(probabilities).log()
    return optimal_baseline(tensor(rewards), logprobs, tensor(entropies), mask, prompt_of, **options)


def test_the_baseline_worked_out_by_hand():
    # Two equally likely tokens: 1 − 2·0.5 + e^−ln 2 = 0.5. Four: 1 − 2·0.25 + 0.25 = 0.75. Weights of the two
    # completions: 0.5 and 0.75, then 1.0 and 1.5; the right one has 0.4 of them at both tokens.
    found = baseline([1, 0], [[0.5] * 2, [0.25] * 2], [[LN(2)] * 2, [LN(4)] * 2], [2, 2])
    torch.testing.assert_close(found, tensor([[0.6, 0.6], [-0.4, -0.4]]), rtol=0, atol=1e-12)


def test_weights_accumulate_over_the_tokens():
    # A certain first token has none: at the second the weights are 0.5 and 0.75 + 0.75.
    found = baseline([1, 0], [[1.0, 0.5], [0.25] * 2], [[0.0, LN(2)], [LN(4)] * 2], [2, 2])
    assert found[:, 0].tolist() == pytest.approx([1.0, 0.0])
    assert found[:, 1].tolist() == pytest.approx([0.75, -0.25])


def test_the_baseline_has_the_least_weighted_squares():
    # It minimises Σ W·(R − b)² at each token, the variance of a gradient of squared norm W.
    generator = torch.Generator().manual_seed(1)
    p = 0.05 + 0.9 * torch.rand(4, 3, generator=generator, dtype=torch.float64)
    h = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    rewards = [1.0, 0.0, 0.5, 0.0]
    found = baseline(rewards, p.tolist(), h.tolist(), [3] * 4)
    weight = torch.maximum(1 - 2 * p + (-h).exp(), (1 - p) ** 2).cumsum(1)

    def squares(advantages):
        return (weight * advantages**2).sum(0)

    for shift in (-0.05, 0.05):
        assert (squares(found + shift) > squares(found)).all()


def test_groups_without_a_signal_and_lonely_tails_have_advantage_0_unless_asked():
    p, h = [[0.5] * 3] * 2, [[0.7] * 3] * 2
    assert baseline([1, 1], p, h, [1, 3]).abs().max().item() == pytest.approx(0.0, abs=1e-12)
    found = baseline([0, 1], p, h, [1, 3], tail="reward")
    assert found[1].tolist() == pytest.approx([0.5, 1.0, 1.0])
    assert found[0].tolist() == pytest.approx([-0.5, 0.0, 0.0])


def test_groups_do_not_mix():
    p, h = [[0.5]] * 4, [[0.7]] * 4
    found = baseline([1, 0, 5, 5], p, h, [1] * 4, prompts=[0, 0, 1, 1])
    assert found[:, 0].tolist() == pytest.approx([0.5, -0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("divergence", "slopes"),
    [
        ("forward_kl", (-2.718282, -1, -0.367879)),
        ("reverse_kl", (0, 1, 2)),
        ("js", (-0.620115, 0, 0.379885)),
        ("tv", (-0.5, 0, 0.5)),
        ("chi2", (-6.389056, 0, 0.864665)),
        ("reverse_chi2", (-1.264241, 0, 3.436564)),
    ],
)
def test_the_slopes_of_the_divergences(divergence, slopes):
    assert divergence_slope(tensor([-1, 0, 1]), divergence).tolist() == pytest.approx(slopes, abs=1e-6)


# Ten samples of (0.7, 0.2, 0.1), of which the last two arms are right; policy and reference are the same.
ARMS = [0] * 7 + [1] * 2 + [2]
RIGHT = tensor([float(arm > 0) for arm in ARMS])
LOGPROBS = tensor([[LN((0.7, 0.2, 0.1)[arm])] for arm in ARMS])
ONE_TOKEN = torch.ones(10, 1, dtype=torch.bool)
ONE_PROMPT = torch.zeros(10, dtype=torch.long)


def targets(old=LOGPROBS, reference=LOGPROBS, rewards=RIGHT, accuracy=RIGHT, **options):
    return f_divergence(rewards, accuracy, old, reference, ONE_TOKEN, ONE_PROMPT, **options)[:, 0]


def test_the_target_of_right_answers_worked_out_by_hand():
    # Z = 0.3, ln t = ln 0.3 of a right answer: g = 0.773190; of a wrong one −0.693147. Means of the others.
    found = targets(divergence="js", target="right")
    mean = (3 * 0.773190 - 7 * 0.693147) / 10
    assert found[9].item() == pytest.approx((0.773190 - mean) * 10 / 9, abs=1e-5)
    assert found[0].item() == pytest.approx((-0.693147 - mean) * 10 / 9, abs=1e-5)


def test_the_tilted_target_by_reverse_kl_is_rloo_with_the_kl_in_the_reward():
    reference = LOGPROBS - tensor([[0.1 * place] for place in range(10)])
    beta = 0.5
    found = targets(reference=reference, divergence="reverse_kl", target="tilted", beta=beta)
    reward = RIGHT - beta * (LOGPROBS - reference)[:, 0]
    expected = (reward - reward.mean()) * 10 / 9 / beta
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("divergence", ["forward_kl", "js", "tv", "chi2"])
def test_at_the_target_no_advantage_is_left(divergence):
    # π = P/Z where right answers alone are sampled, in the proportions of the reference.
    found = targets(reference=LOGPROBS + 3.0, accuracy=torch.ones(10).double(), divergence=divergence)
    assert found.abs().max().item() == pytest.approx(0.0, abs=1e-12)
    held = targets(
        reference=LOGPROBS - tensor([[float(arm)] for arm in ARMS]),
        accuracy=torch.ones(10).double(),
        divergence=divergence,
    )
    assert held[0] > held[9]


def preferred(logprobs, reference, rewards, mask, prompts, beta=0.1):
    return preference(tensor(rewards), logprobs, reference, mask, torch.tensor(prompts), beta=beta)


def test_a_preferred_pair_worked_out_by_hand():
    # Margin 2, β = 0.1: 0.1·σ(−0.2) = 0.045017, for a group of two times 2. Swapped, −2: 0.1·σ(0.2).
    logprobs, mask = tensor([[-1.0, -1.0], [-2.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    reference = logprobs - tensor([[1.0, 1.5], [0.5, 9.0]])
    found = preferred(logprobs, reference, [1, 0], mask, [0, 0])
    torch.testing.assert_close(found, 2 * 0.045017 * tensor([[1.0, 1.0], [-1.0, 0.0]]), rtol=0, atol=1e-6)
    swapped = preferred(logprobs, reference, [0, 1], mask, [0, 0])
    assert swapped[1, 0].item() == pytest.approx(0.2 / (1 + math.exp(-0.2)), abs=1e-9)


def test_preferences_have_the_gradient_of_the_dpo_loss():
    generator = torch.Generator().manual_seed(2)
    rewards, prompts, beta = [1.0, 0.0, 0.5, 0.0, 1.0, 1.0], [0, 0, 0, 0, 1, 1], 0.3
    draws = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    logprobs, reference = draws[0].requires_grad_(), draws[1]
    mask = torch.arange(3) < torch.tensor([3, 1, 2, 3, 2, 2])[:, None]
    ratio = ((logprobs - reference) * mask).sum(1)
    pairs = [(i, j) for i in range(4) for j in range(4) if rewards[i] > rewards[j]]
    losses = [-torch.nn.functional.logsigmoid(beta * (ratio[i] - ratio[j])) for i, j in pairs]
    # Of six completions four are of the prompt that has pairs: its mean counts by 4/6.
    loss = torch.stack(losses).mean() * 4 / 6
    (expected,) = torch.autograd.grad(loss, logprobs)
    found = preferred(logprobs.detach(), reference, rewards, mask, prompts, beta)
    torch.testing.assert_close(-found / 6, expected, rtol=0, atol=1e-12)


def test_a_group_without_a_right_answer_has_no_advantage():
    assert targets(accuracy=torch.zeros(10).double()).tolist() == [0.0] * 10


def test_the_reference_policy_is_asked_for_and_infinite_divergences_are_refused():
    assert build(recipe="f_dpg").needs_reference
    section = [{"name": "f_divergence", "divergence": "reverse_kl", "target": "right"}]
    assert "is infinite at wrong answers" in message(token_advantages=section)
    assert "needs rollout.completions >= 2" in message(
        recipe="f_dpg", completions=1, advantage={"name": "one"}
    )
