"""Values, gradients and clip flags of the surrogates, token by token."""

import math

import pytest
import torch

from mm_cpgd.algorithms import surrogates

LOW, HIGH = math.log(0.8), math.log(1.2)
# Well inside, just inside and just outside of each bound, far outside.
LOG_RATIOS = [-3.0, LOW - 1e-3, LOW + 1e-3, -0.1, 0.0, 0.1, HIGH - 1e-3, HIGH + 1e-3, 3.0]


def evaluate(surrogate, log_ratios, advantage, **options):
    """Terms, gradients and flags as lists, for one row with this advantage."""
    log_ratio = torch.tensor([log_ratios], dtype=torch.float64, requires_grad=True)
    terms, clipped = surrogate(log_ratio, torch.tensor([[advantage]], dtype=torch.float64), **options)
    (gradient,) = torch.autograd.grad(terms.sum(), log_ratio)
    return terms[0].tolist(), gradient[0].tolist(), clipped[0].tolist()


def beyond(log_ratio, advantage):
    return log_ratio > HIGH if advantage > 0 else log_ratio < LOW


@pytest.mark.parametrize("advantage", [2.0, -1.5, 0.0])
def test_policy_gradient_is_the_advantage_everywhere(advantage):
    terms, gradient, clipped = evaluate(surrogates.policy_gradient, LOG_RATIOS, advantage)
    assert terms == pytest.approx([x * advantage for x in LOG_RATIOS], abs=1e-15)
    assert gradient == [advantage] * len(LOG_RATIOS)
    assert not any(clipped)


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_cpgd_value_is_the_papers_minimum(advantage):
    expected = [min(x * advantage, max(LOW, min(x, HIGH)) * advantage) for x in LOG_RATIOS]
    assert evaluate(surrogates.cpgd, LOG_RATIOS, advantage)[0] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_cpgd_gradient_is_the_advantage_and_exactly_zero_beyond_the_bound(advantage):
    _, gradient, clipped = evaluate(surrogates.cpgd, LOG_RATIOS, advantage)
    assert gradient == [0.0 if beyond(x, advantage) else advantage for x in LOG_RATIOS]
    assert clipped == [beyond(x, advantage) for x in LOG_RATIOS]


@pytest.mark.parametrize(("log_ratio", "advantage"), [(-3.0, 2.0), (3.0, -1.5)])
def test_a_token_that_moved_in_the_wrong_direction_keeps_its_whole_gradient_in_cpgd(log_ratio, advantage):
    _, gradient, clipped = evaluate(surrogates.cpgd, [log_ratio], advantage)
    assert gradient == [advantage]
    assert clipped == [False]


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_cpgd_gradient_equals_policy_gradient_where_nothing_has_moved(advantage):
    zeros = [0.0] * 3
    assert (
        evaluate(surrogates.cpgd, zeros, advantage)[1]
        == evaluate(surrogates.policy_gradient, zeros, advantage)[1]
    )


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_ppo_value_is_the_papers_minimum(advantage):
    ratios = [math.exp(x) for x in LOG_RATIOS]
    expected = [min(r * advantage, max(0.8, min(r, 1.2)) * advantage) for r in ratios]
    assert evaluate(surrogates.ppo_clip, LOG_RATIOS, advantage)[0] == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_ppo_gradient_carries_the_ratio_and_is_zero_beyond_the_bound(advantage):
    _, gradient, clipped = evaluate(surrogates.ppo_clip, LOG_RATIOS, advantage)
    expected = [0.0 if beyond(x, advantage) else math.exp(x) * advantage for x in LOG_RATIOS]
    assert gradient == pytest.approx(expected, abs=1e-13)
    assert clipped == [beyond(x, advantage) for x in LOG_RATIOS]


def test_two_epsilons_bound_the_two_sides():
    options = {"epsilon_low": 0.5, "epsilon_high": 0.28}
    terms, *_ = evaluate(surrogates.ppo_clip, [-3.0, 3.0], 1.0, **options)
    assert terms == pytest.approx([math.exp(-3), 1.28], abs=1e-14)
    terms, *_ = evaluate(surrogates.ppo_clip, [-3.0, 0.2], -1.0, **options)
    assert terms == pytest.approx([-0.5, -math.exp(0.2)], abs=1e-14)


def test_dual_clip_bounds_the_ratio_for_negative_advantages_only():
    log_ratios = [-3.0, 0.0, math.log(2.9), math.log(3.1), 50.0]
    terms, gradient, clipped = evaluate(surrogates.dual_clip, log_ratios, -2.0)
    assert terms == pytest.approx([-1.6, -2.0, -5.8, -6.0, -6.0], abs=1e-13)
    assert gradient == pytest.approx([0.0, -2.0, -5.8, 0.0, 0.0], abs=1e-13)
    assert clipped == [True, False, False, True, True]


def test_dual_clip_is_ppo_for_positive_advantages():
    assert evaluate(surrogates.dual_clip, LOG_RATIOS, 2.0) == evaluate(surrogates.ppo_clip, LOG_RATIOS, 2.0)


@pytest.mark.parametrize("surrogate", [surrogates.cpgd, surrogates.ppo_clip, surrogates.dual_clip])
def test_a_ratio_that_overflows_beyond_the_bound_has_gradient_zero(surrogate):
    log_ratio = torch.tensor([[200.0]], requires_grad=True)
    terms, _ = surrogate(log_ratio, torch.tensor([[1.0]]))
    (gradient,) = torch.autograd.grad(terms.sum(), log_ratio)
    assert terms.isfinite().all()
    assert gradient.item() == 0.0


@pytest.mark.parametrize("surrogate", [surrogates.cpgd, surrogates.ppo_clip, surrogates.dual_clip])
def test_advantage_zero_has_gradient_zero_and_is_not_counted_as_clipped(surrogate):
    terms, gradient, clipped = evaluate(surrogate, [-900.0, 0.0, 900.0], 0.0)
    assert terms == [0.0] * 3
    assert gradient == [0.0] * 3
    assert clipped == [False] * 3


def test_advantages_may_differ_by_token():
    log_ratio = torch.tensor([[1.0, 1.0, -1.0]], dtype=torch.float64)
    terms, clipped = surrogates.cpgd(log_ratio, torch.tensor([[1.0, -2.0, -1.0]], dtype=torch.float64))
    assert terms[0].tolist() == pytest.approx([HIGH, -2.0, -LOW], abs=1e-15)
    assert clipped[0].tolist() == [True, False, True]


def test_epsilon_may_differ_by_token():
    log_ratio = torch.full((2, 3), 1.0, dtype=torch.float64)
    epsilon = torch.tensor([0.1, 0.2, 5.0], dtype=torch.float64)
    bounded, clipped = surrogates.one_sided_clip(
        log_ratio, torch.ones(2, 1, dtype=torch.float64), 0.2, epsilon
    )
    assert bounded[1].tolist() == pytest.approx([math.log(1.1), math.log(1.2), 1.0], abs=1e-15)
    assert clipped[1].tolist() == [True, True, False]


def test_the_ramp_bounds_early_tokens_tighter_and_ends_at_epsilon():
    terms, *_ = evaluate(surrogates.cpgd, [1.0] * 5, 1.0, ramp_start=0.5, ramp_tokens=2)
    factors = [0.5, 0.75, 1.0, 1.0, 1.0]
    assert terms == pytest.approx([math.log(1 + 0.2 * f) for f in factors], abs=1e-15)
    terms, *_ = evaluate(surrogates.cpgd, [-1.0] * 5, -1.0, ramp_start=0.5, ramp_tokens=2)
    assert terms == pytest.approx([-math.log(1 - 0.2 * f) for f in factors], abs=1e-15)


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_importance_is_ratio_times_advantage_without_any_bound(advantage):
    terms, gradient, clipped = evaluate(surrogates.importance, LOG_RATIOS, advantage)
    expected = [math.exp(x) * advantage for x in LOG_RATIOS]
    assert terms == pytest.approx(expected, abs=1e-13)
    assert gradient == pytest.approx(expected, abs=1e-13)
    assert not any(clipped)


@pytest.mark.parametrize("advantage", [2.0, -1.5])
def test_cispo_keeps_every_tokens_gradient_and_bounds_its_weight(advantage):
    log_ratios = [-9.0, -0.5, 0.0, 0.5, math.log(5) - 1e-3, math.log(5) + 1e-3, 900.0]
    _, gradient, bounded = evaluate(surrogates.cispo, log_ratios, advantage)
    weights = [math.exp(-9), math.exp(-0.5), 1.0, math.exp(0.5), 5 * math.exp(-1e-3), 5.0, 5.0]
    assert gradient == pytest.approx([w * advantage for w in weights], abs=1e-13)
    assert bounded == [False] * 5 + [True] * 2


def test_cispo_with_a_lower_bound():
    _, gradient, bounded = evaluate(surrogates.cispo, [-9.0, 0.0], 1.0, epsilon_low=0.9)
    assert gradient == pytest.approx([0.1, 1.0], abs=1e-15)
    assert bounded == [True, False]


def of_sequence(log_ratios, advantages, **options):
    """GSPO's terms, gradients and flags for rows of two tokens, the second row's last one masked."""
    log_ratio = torch.tensor(log_ratios, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    terms, clipped = surrogates.gspo(
        log_ratio, torch.tensor(advantages, dtype=torch.float64), mask, **options
    )
    (gradient,) = torch.autograd.grad((terms * mask).sum(), log_ratio)
    return terms.detach(), gradient, clipped


def test_gspo_takes_the_root_of_the_completions_ratio_for_each_of_its_tokens():
    terms, gradient, clipped = of_sequence(
        [[0.5, -0.1], [0.1, 0.0]], [[2.0], [-1.0]], epsilon_low=0.3, epsilon_high=0.3
    )
    # (0.5 − 0.1)/2 = 0.2 and 0.1/1; every token of a completion has its value, and the same slope.
    expected = [2 * math.exp(0.2), -math.exp(0.1)]
    assert terms[0].tolist() == pytest.approx([expected[0]] * 2, abs=1e-15)
    assert gradient[0].tolist() == pytest.approx([expected[0]] * 2, abs=1e-15)
    assert terms[1, 0].item() == pytest.approx(expected[1], abs=1e-15)
    assert gradient[1].tolist() == pytest.approx([expected[1], 0.0], abs=1e-15)
    assert not clipped.any()


def test_gspo_clips_completions_as_a_whole():
    # The first token alone is within the bound of 0.25; the completion's mean 0.3 is not.
    terms, gradient, clipped = of_sequence(
        [[0.1, 0.5], [-0.4, 0.0]], [[2.0], [-1.0]], epsilon_low=0.3, epsilon_high=0.25
    )
    assert terms[0].tolist() == pytest.approx([2.5] * 2, abs=1e-15)
    assert gradient.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert terms[1, 0].item() == pytest.approx(-0.7, abs=1e-15)
    assert clipped.tolist() == [[True, True], [True, False]]


def test_gspo_gives_each_token_the_gradient_of_its_own_advantage():
    _, gradient, _ = of_sequence(
        [[0.1, 0.1], [0.0, 0.0]], [[2.0, -3.0], [1.0, 1.0]], epsilon_low=0.3, epsilon_high=0.3
    )
    expected = [2 * math.exp(0.1), -3 * math.exp(0.1)]
    assert gradient[0].tolist() == pytest.approx(expected, abs=1e-15)


def test_gspo_with_the_mean_over_completions_is_the_papers_sequence_gradient():
    log_ratio = torch.tensor([[0.2, -0.4, 0.05]], dtype=torch.float64, requires_grad=True)
    ratio = (log_ratio.sum() / 3).exp()
    (expected,) = torch.autograd.grad(2.0 * ratio, log_ratio)
    mask = torch.ones(1, 3, dtype=torch.bool)
    terms, _ = surrogates.gspo(
        log_ratio, torch.full((1, 1), 2.0).double(), mask, epsilon_low=0.5, epsilon_high=0.5
    )
    (gradient,) = torch.autograd.grad(terms.mean(), log_ratio)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-15)


def test_exp_advantage_weights_the_likelihood_whatever_has_moved():
    for advantage, weight in ((0.0, 1.0), (1.0, math.e), (-2.0, math.exp(-2)), (9.0, 20.0)):
        _, gradient, bounded = evaluate(surrogates.exp_advantage, [-1.0, 0.0, 2.0], advantage)
        assert gradient == pytest.approx([weight] * 3, abs=1e-12)
        assert bounded == [advantage == 9.0] * 3
