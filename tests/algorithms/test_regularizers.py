"""Policy drift and KL to the reference: values, gradients, safety."""

import math

import pytest
import torch

from mm_cpgd.algorithms import regularizers
from mm_cpgd.algorithms.regularizers import EntropyController

POINTS = [-5.0, -0.7, -0.01, 0.0, 0.01, 0.7, math.log(3) - 1e-6, math.log(3) + 1e-6, 2.0, 10.0]


def evaluate(part, points, dtype=torch.float64, **options):
    x = torch.tensor([points], dtype=dtype, requires_grad=True)
    penalty = part(x, **options)
    (gradient,) = torch.autograd.grad(penalty.sum(), x)
    return penalty[0].tolist(), gradient[0].tolist()


def kl(x, **options):
    """The part on samples of the policy itself."""
    return regularizers.kl(x, torch.zeros_like(x), **options)


def test_drift_gradient_is_ratio_less_one_capped():
    _, gradient = evaluate(regularizers.policy_drift, POINTS, alpha=0.01, cap=2.0)
    assert gradient == pytest.approx([0.01 * min(math.exp(x) - 1, 2.0) for x in POINTS], abs=1e-14)


def test_drift_gradient_equals_that_of_the_papers_stop_gradient_form():
    log_policy = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    coefficient = (log_policy.exp() - 1).clamp(max=2.0).detach()
    (expected,) = torch.autograd.grad((coefficient * log_policy).sum(), log_policy)
    _, gradient = evaluate(regularizers.policy_drift, POINTS, alpha=1.0, cap=2.0)
    assert gradient == pytest.approx(expected.tolist(), abs=1e-14)


def test_drift_value_is_k3_as_long_as_nothing_is_capped():
    points = [x for x in POINTS if x < math.log(3)]
    value, _ = evaluate(regularizers.policy_drift, points, alpha=1.0)
    assert value == pytest.approx([math.exp(x) - 1 - x for x in points], abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drift_is_finite_for_huge_log_ratios(dtype):
    value, gradient = evaluate(regularizers.policy_drift, [-1e4, 1e4], dtype, alpha=1.0, cap=2.0)
    assert all(math.isfinite(v) and v >= 0 for v in value)
    assert gradient == pytest.approx([-1.0, 2.0], abs=1e-12)


def test_reported_k3_is_finite_for_huge_log_ratios():
    assert regularizers.capped_k3(torch.tensor([-1e4, 1e4])).isfinite().all()


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        ("k1", lambda x: x, lambda x: 1.0),
        ("k2", lambda x: x * x / 2, lambda x: x),
        ("k3", lambda x: math.exp(-x) - 1 + x, lambda x: 1 - math.exp(-x)),
    ],
)
def test_kl_in_the_papers_form_differentiates_the_estimator(estimator, value, slope):
    actual, gradient = evaluate(kl, POINTS, coefficient=0.1, estimator=estimator)
    assert actual == pytest.approx([0.1 * value(x) for x in POINTS], abs=1e-12)
    assert gradient == pytest.approx([0.1 * slope(x) for x in POINTS], abs=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_correct_kl_keeps_the_value_and_has_the_log_ratio_as_gradient(estimator):
    paper, _ = evaluate(kl, POINTS, coefficient=0.1, estimator=estimator)
    value, gradient = evaluate(kl, POINTS, coefficient=0.1, estimator=estimator, gradient="correct")
    assert value == pytest.approx(paper, abs=1e-14)
    assert gradient == pytest.approx([0.1 * x for x in POINTS], abs=1e-14)


def test_correct_kl_gradient_is_on_average_that_of_the_divergence():
    # All three tokens of a small vocabulary, each weighted with its probability: the exact expectation.
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.2, -0.4], dtype=torch.float64).log_softmax(0)
    log_policy = logits.log_softmax(0)
    (exact,) = torch.autograd.grad(
        (log_policy.exp() * (log_policy - reference)).sum(), logits, retain_graph=True
    )
    penalty = kl(log_policy - reference, coefficient=1.0, estimator="k3", gradient="correct")
    (sampled,) = torch.autograd.grad((log_policy.exp().detach() * penalty).sum(), logits)
    torch.testing.assert_close(sampled, exact, rtol=0, atol=1e-14)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_kl_is_on_average_that_of_the_divergence_for_samples_of_an_older_policy(estimator):
    # As above, but each token is weighted with its probability under the older policy that has drawn it.
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.2, -0.4], dtype=torch.float64).log_softmax(0)
    older = torch.tensor([-0.7, 0.4, 0.0], dtype=torch.float64).log_softmax(0)
    log_policy = logits.log_softmax(0)
    exact = (log_policy.exp() * (log_policy - reference)).sum()
    (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
    found = {}
    for gradient in ("correct", "unbiased"):
        options = {"coefficient": 1.0, "estimator": estimator, "gradient": gradient}
        penalty = regularizers.kl(log_policy - reference, log_policy - older, **options)
        value = (older.exp() * penalty).sum()
        found[gradient] = value.item(), torch.autograd.grad(value, logits, retain_graph=True)[0]
    assert found["unbiased"][0] == pytest.approx(exact.item(), abs=1e-14)
    torch.testing.assert_close(found["unbiased"][1], expected, rtol=0, atol=1e-14)
    assert not torch.allclose(found["correct"][1], expected, rtol=0, atol=0.01)


def test_unbiased_kl_is_the_gradient_of_the_ratio_times_k3():
    # r = 2, x = −0.5: k3 = e^0.5 − 1 − 0.5 = 0.148721; value 2·k3, gradient r·x = −1.
    ell = torch.tensor([[math.log(2)]], dtype=torch.float64, requires_grad=True)
    x = ell - math.log(2) - 0.5
    penalty = regularizers.kl(x, ell, coefficient=1.0, gradient="unbiased")
    (own,) = torch.autograd.grad(penalty.sum(), ell)
    (autograd,) = torch.autograd.grad((ell.exp() * ((-x).exp() - 1 + x)).sum(), ell)
    assert penalty.item() == pytest.approx(0.297443, abs=1e-6)
    assert own.item() == pytest.approx(-1.0, abs=1e-12)
    assert autograd.item() == pytest.approx(-1.0, abs=1e-12)


def test_kl_is_finite_when_the_policy_has_nearly_dropped_a_token():
    value, gradient = evaluate(kl, [-1e3], torch.float32, coefficient=1.0, estimator="k3")
    assert math.isfinite(value[0])
    assert math.isfinite(gradient[0])


def test_entropy_bonus_is_a_negative_penalty_in_proportion():
    value, gradient = evaluate(regularizers.entropy_bonus, [0.0, 0.5, 2.0], coefficient=0.01)
    assert value == pytest.approx([0.0, -0.005, -0.02], abs=1e-16)
    assert gradient == [-0.01] * 3


def test_kl_cov_penalises_the_marked_tokens_only():
    log_ratio = torch.tensor([[0.5, -0.5, 0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    marked = torch.tensor([[1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    penalty = regularizers.kl_cov(log_ratio, marked, coefficient=2.0)
    (gradient,) = torch.autograd.grad(penalty.sum(), log_ratio)
    assert penalty[0].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert gradient[0].tolist() == [2.0, -2.0, 0.0, 0.0]


def test_entropy_control_takes_its_coefficient_from_its_state():
    entropy = torch.tensor([[0.5]])
    assert regularizers.entropy_control(entropy, 0.1).item() == pytest.approx(-0.05)
    assert regularizers.entropy_control(entropy, 0.0).item() == 0.0


def controlled(*entropies, **options):
    """The controller's values after each of these steps."""
    controller = EntropyController(**{"target": 1.0, "step": 0.1, "largest": 0.25, **options})
    values = []
    for entropy in entropies:
        controller.observe({"entropy": entropy})
        values.append(controller.value)
    return values


def test_the_coefficient_grows_below_the_target_up_to_its_bound():
    assert controlled(0.9, 0.9, 0.9, 0.9) == pytest.approx([0.1, 0.2, 0.25, 0.25])


def test_above_the_target_the_penalty_is_zero_and_the_coefficient_shrinks_to_zero():
    # 0.1, 0.2, then 0.1 that rests, then 0.2 again.
    assert controlled(0.9, 0.9, 1.1, 0.9) == pytest.approx([0.1, 0.2, 0.0, 0.2])
    assert controlled(1.1, 1.1, 0.9) == pytest.approx([0.0, 0.0, 0.1])


def test_a_step_without_a_finite_entropy_is_ignored():
    assert controlled(0.9, float("nan"), 0.9) == pytest.approx([0.1, 0.1, 0.2])


def test_a_controller_resumes_from_its_state():
    first = EntropyController(1.0, 0.1, 1.0)
    first.observe({"entropy": 0.5})
    second = EntropyController(1.0, 0.1, 1.0)
    second.load_state_dict(first.state_dict())
    second.observe({"entropy": 0.5})
    assert second.value == pytest.approx(0.2)


def test_mirror_worked_out_by_hand():
    # ℓ = 0.1, t = 0.5: 2·(0.110517 − 1.105171 + 1) = 0.010692; slope 2·0.110517.
    value, gradient = evaluate(regularizers.mirror, [0.1, 0.0, -0.7], step=0.5)
    assert value == pytest.approx([0.010692, 0.0, 2 * (-0.7 * math.exp(-0.7) - math.exp(-0.7) + 1)], abs=1e-6)
    assert gradient == pytest.approx([0.221034, 0.0, -1.4 * math.exp(-0.7)], abs=1e-6)


def test_mirror_is_linear_and_finite_far_away():
    value, gradient = evaluate(regularizers.mirror, [2.0 - 1e-9, 3.0, 1e4, -1e4], step=1.0, cap=2.0)
    slope = 2 * math.exp(2)
    assert gradient == pytest.approx([slope, slope, slope, 0.0], rel=1e-7)
    assert value[1] - value[0] == pytest.approx(slope)
    assert value[3] == pytest.approx(1.0)


@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_mirror_ends_the_move_of_a_token_at_step_times_advantage(advantage):
    step = 0.3
    points = [step * advantage * share for share in (0.5, 1.0, 1.5)]
    _, pulled = evaluate(regularizers.mirror, points, step=step)
    pushed = [math.exp(x) * advantage for x in points]
    inside, end, outside = ((p - q) * advantage for p, q in zip(pushed, pulled, strict=True))
    assert inside > 0 > outside
    assert end == pytest.approx(0.0, abs=1e-12)


def test_ascent_on_importance_less_mirror_ends_at_the_closed_form():
    # π_old (0.5, 0.3, 0.2), A (1, −0.5, 0), t 0.5: π_old·e^(tA) normalised, 0.051692 nats away.
    old = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    advantages = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
    logits = old.log().requires_grad_()
    for _ in range(400):
        ell = logits.log_softmax(0) - old.log()
        gain = (old * (ell.exp() * advantages - regularizers.mirror(ell, step=0.5))).sum()
        (gradient,) = torch.autograd.grad(gain, logits)
        logits = (logits + gradient).detach().requires_grad_()
    found = logits.detach().softmax(0)
    assert found.tolist() == pytest.approx([0.655294, 0.185723, 0.158982], abs=1e-5)
    assert (found * (found / old).log()).sum().item() == pytest.approx(0.051692, abs=1e-5)
