"""EPO's entropy band: worked numbers, its history, and that the published term has no gradient."""

import pytest
import torch

from mm_cpgd.algorithms.methods.entropy_band import EntropyHistory, entropy_band, phase_weight

POINTS = [0.3, 0.5, 0.9]


def evaluate(state=0.5, progress=0.0, **options):
    entropy = torch.tensor([POINTS], dtype=torch.float64, requires_grad=True)
    penalty = entropy_band(entropy, state, progress, coefficient=1.0, **options)
    if not penalty.requires_grad:
        return penalty[0].tolist(), [0.0] * 3
    return penalty[0].tolist(), torch.autograd.grad(penalty.sum(), entropy)[0][0].tolist()


def test_the_hinge_worked_out_by_hand():
    # Band 0.4 to 0.6 around 0.5.
    value, gradient = evaluate()
    assert value == pytest.approx([0.1, 0.0, 0.3], abs=1e-12)
    assert gradient == [-1.0, 0.0, 1.0]


def test_the_published_indicator_changes_the_value_and_has_no_gradient():
    value, gradient = evaluate(shape="indicator", penalty=0.1)
    assert value == pytest.approx([0.1, 0.0, 0.1])
    assert gradient == [0.0, 0.0, 0.0]


def test_without_history_or_with_an_endless_band_there_is_no_penalty():
    assert evaluate(state=None) == ([0.0] * 3, [0.0] * 3)
    assert evaluate(low=0.0, high=1e9) == ([0.0] * 3, [0.0] * 3)


def test_a_collapsed_policy_is_not_held_at_zero():
    value, _ = evaluate(state=0.0, floor=1.0)
    assert value == [0.0] * 3


@pytest.mark.parametrize(
    ("epoch", "weight"),
    [(0, 1.0), (37, 0.874563), (75, 0.827067), (76, 0.768632), (112, 0.182110), (150, 0.039830)],
)
def test_the_weight_falls_over_the_run_as_published(epoch, weight):
    assert phase_weight(epoch / 150) == pytest.approx(weight, abs=1e-6)
    value, _ = evaluate(progress=epoch / 150)
    assert value[2] == pytest.approx(0.3 * weight, abs=1e-6)
    assert evaluate(progress=epoch / 150, phases="constant")[0][2] == pytest.approx(0.3)


def observed(history, *entropies):
    for entropy in entropies:
        history.observe({"entropy": entropy})
    return history.value


def test_the_history_is_the_mean_of_all_steps_or_forgets():
    history = EntropyHistory(None)
    assert history.value is None
    assert [observed(history, x) for x in (0.4, 0.6, 0.8)] == pytest.approx([0.4, 0.5, 0.6])
    assert observed(history, float("nan")) == pytest.approx(0.6)
    assert observed(EntropyHistory(0.9), 0.4, 0.6) == pytest.approx(0.42)


def test_the_history_resumes():
    first, second = EntropyHistory(None), EntropyHistory(None)
    second.load_state_dict(first.state_dict())
    assert second.value is None
    observed(first, 0.4, 0.6)
    second.load_state_dict(first.state_dict())
    assert observed(second, 0.8) == observed(first, 0.8) == pytest.approx(0.6)
