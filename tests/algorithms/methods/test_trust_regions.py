"""Surrogates without a ratio clip: worked numbers, limits, and what they have in common."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_cpgd.algorithms import surrogates
from mm_cpgd.algorithms.methods import trust_regions
from tests.fakes import closed_forms

few_examples = settings(max_examples=60, deadline=None)
ELLS = st.lists(st.floats(-3, 3), min_size=1, max_size=6)


def evaluate(surrogate, ells, advantage, *more, **options):
    """Terms, gradients and flags of one completion, as lists."""
    ell = torch.tensor([ells], dtype=torch.float64, requires_grad=True)
    terms, clipped = surrogate(ell, torch.tensor([[advantage]], dtype=torch.float64), *more, **options)
    (gradient,) = torch.autograd.grad(terms.sum(), ell)
    return terms[0].tolist(), gradient[0].tolist(), clipped[0].tolist()


def whole(ells):
    return torch.ones(1, len(ells), dtype=torch.bool)


def old(*probabilities):
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_sapo_worked_out_by_hand():
    # r = 2: σ(1) = 0.731059, times 4; slope 4·0.731059·0.268941·2 = 1.572894. At r = 1 it is 2·A and A.
    terms, gradient, _ = evaluate(trust_regions.sapo, [math.log(2), 0.0], 1.0)
    assert terms == pytest.approx([2.924234, 2.0], abs=1e-6)
    assert gradient == pytest.approx([1.572895, 1.0], abs=1e-6)
    terms, gradient, _ = evaluate(trust_regions.sapo, [0.0], -1.0)
    assert terms == pytest.approx([-2 / 1.05], abs=1e-12)
    assert gradient == pytest.approx([-1.0], abs=1e-12)


@few_examples
@given(ells=ELLS, advantage=st.sampled_from([-2.0, -0.5, 0.0, 1.0]))
def test_sapo_has_the_published_gradient_and_never_more_than_that_of_the_ratio(ells, advantage):
    _, gradient, clipped = evaluate(trust_regions.sapo, ells, advantage)
    expected = [closed_forms.sapo(ells, t, advantage, 0.0) for t in range(len(ells))]
    assert gradient == pytest.approx(expected, abs=1e-12)
    assert all(abs(g) <= math.exp(x) * abs(advantage) + 1e-12 for g, x in zip(gradient, ells, strict=True))
    assert not any(clipped)


def test_sapos_gate_is_narrower_at_a_higher_temperature_and_closes_far_away():
    slopes = [evaluate(trust_regions.sapo, [0.7], 1.0, tau_positive=tau)[1][0] for tau in (0.01, 1.0, 5.0)]
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[0] == pytest.approx(math.exp(0.7), rel=1e-4)
    assert evaluate(trust_regions.sapo, [200.0, -200.0], 1.0)[1] == [0.0, pytest.approx(0.0, abs=1e-12)]


def test_gmpo_worked_out_by_hand():
    # A > 0: ℓ = (0.2, 1.0) is bounded to (0.2, 0.4), whose mean is 0.3; the second token has no gradient.
    terms, gradient, clipped = evaluate(trust_regions.gmpo, [0.2, 1.0], 2.0, whole([0, 0]))
    assert terms == pytest.approx([2 * math.exp(0.3)] * 2, abs=1e-12)
    assert gradient == pytest.approx([2 * math.exp(0.3), 0.0], abs=1e-12)
    assert clipped == [False, True]


@few_examples
@given(ells=ELLS, advantage=st.sampled_from([-2.0, -0.5, 1.0]))
def test_the_mean_of_gmpos_terms_is_the_papers_geometric_mean(ells, advantage):
    ell = torch.tensor([ells], dtype=torch.float64, requires_grad=True)
    bounded = ell.clamp(max=0.4) if advantage > 0 else ell.clamp(min=-0.4)
    paper = bounded.exp().prod() ** (1 / len(ells)) * advantage
    (expected,) = torch.autograd.grad(paper, ell)
    terms, _ = trust_regions.gmpo(ell, torch.tensor([[advantage]], dtype=torch.float64), whole(ells))
    (gradient,) = torch.autograd.grad(terms.mean(), ell)
    assert terms.mean().item() == pytest.approx(paper.item(), rel=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_gmpo_without_bounds_is_gspo_without_bounds():
    ells = [0.5, -1.0, 0.3]
    own = evaluate(trust_regions.gmpo, ells, 1.0, whole(ells), bound_low=9.0, bound_high=9.0)
    other = evaluate(surrogates.gspo, ells, 1.0, whole(ells), epsilon_low=0.99, epsilon_high=99.0)
    assert own[0] == pytest.approx(other[0], abs=1e-12)
    assert own[1] == pytest.approx(other[1], abs=1e-12)


def test_gmpo_leaves_masked_tokens_out_of_the_mean():
    mask = torch.tensor([[True, False]])
    ell = torch.tensor([[0.2, 0.0]], dtype=torch.float64)
    terms, clipped = trust_regions.gmpo(ell, torch.ones(1, 1, dtype=torch.float64), mask)
    assert terms[0, 0].item() == pytest.approx(math.exp(0.2), abs=1e-12)
    assert not clipped.any()


def test_dppo_lets_rare_tokens_move_and_holds_frequent_ones():
    # A rare token a hundred times likelier moves by 0.00099; a frequent one from 0.99 to 0.8 by 0.19.
    ells = [math.log(100), math.log(0.8 / 0.99)]
    _, gradient, outside = evaluate(trust_regions.dppo, ells, 1.0, old(1e-5, 0.99))
    assert gradient == pytest.approx([100.0, 0.8 / 0.99], abs=1e-9)
    assert outside == [False, False]
    _, gradient, outside = evaluate(trust_regions.dppo, ells, -1.0, old(1e-5, 0.99))
    assert gradient == pytest.approx([-100.0, 0.0], abs=1e-9)
    assert outside == [False, True]


def test_dppo_by_kl_worked_out_by_hand():
    # 0.5 → 0.7: 0.5·ln(5/7) + 0.5·ln(5/3) = 0.087177 > 0.05; 0.5 → 0.6: 0.020411.
    found = trust_regions.binary_divergence(old(0.5, 0.5), old(1.4, 1.2), "kl")
    assert found[0].tolist() == pytest.approx([0.087177, 0.020411], abs=1e-6)
    _, gradient, _ = evaluate(
        trust_regions.dppo, old(1.4, 1.2)[0].tolist(), 1.0, old(0.5, 0.5), divergence="kl"
    )
    assert gradient == pytest.approx([0.0, 1.2], abs=1e-12)


@few_examples
@given(p=st.floats(1e-6, 0.999), q=st.floats(1e-6, 0.999), advantage=st.sampled_from([-1.0, 0.0, 2.0]))
@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_dppo_only_stops_tokens_that_moved_too_far_where_the_advantage_pushes_them(
    divergence, p, q, advantage
):
    ell = math.log(q / p)
    _, gradient, outside = evaluate(trust_regions.dppo, [ell], advantage, old(p), divergence=divergence)
    distance = abs(p - q)
    if divergence == "kl":
        distance = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    limit = {"tv": 0.15, "kl": 0.05}[divergence]
    if abs(distance - limit) < 1e-9:
        return
    stopped = distance > limit and (q - p) * advantage > 0
    assert outside == [stopped]
    assert gradient == pytest.approx([0.0 if stopped else min(q / p, 1e4) * advantage], rel=1e-9)


def test_the_divergence_of_a_token_that_became_certain_is_finite():
    for divergence in ("tv", "kl"):
        found = trust_regions.binary_divergence(old(0.5, 1.0), old(2.0, 0.5), divergence)
        assert found.isfinite().all()
        assert (found >= 0).all()
    assert trust_regions.binary_divergence(old(0.5), old(1.0), "kl").item() == pytest.approx(0.0, abs=1e-15)


def test_dppo_bounds_the_ratio_in_the_gradient():
    _, gradient, _ = evaluate(trust_regions.dppo, [3.0], -1.0, old(1e-3), cap=5.0)
    assert gradient == pytest.approx([-5.0], abs=1e-12)


@pytest.mark.parametrize("advantage", [1.5, -0.5, 0.0])
def test_all_have_the_policy_gradient_where_nothing_has_moved(advantage):
    for surrogate, more in [
        (trust_regions.sapo, []),
        (trust_regions.gmpo, [whole([0] * 3)]),
        (trust_regions.dppo, [old(0.1, 0.5, 0.9)]),
    ]:
        _, gradient, clipped = evaluate(surrogate, [0.0] * 3, advantage, *more)
        assert gradient == pytest.approx([advantage] * 3, abs=1e-12)
        assert not any(clipped)
