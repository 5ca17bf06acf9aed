"""RiskPO: the worked numbers, its invariants and the tracked quantiles."""

import pytest
import torch

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.methods.bundles import QuantileTracker, mixed_risk, riskpo
from tests.fakes.objectives import build, message

NAN = float("nan")
PAIR = torch.tensor([[1.0, 0, 0], [1, 1, 0]], dtype=torch.float64)
LEVELS = {"low": 0.2, "high": 0.8, "weight": 1.5}


def test_six_scores_by_hand():
    found = mixed_risk(torch.arange(6).double(), 1.0, 4.0, **LEVELS)
    assert found.tolist() == pytest.approx([-5, -2, -4 / 3, -2 / 3, 0, 0])


def test_a_bundle_of_two_prompts_by_hand():
    found = riskpo(PAIR, QuantileTracker(bundle=2), bundle=2)
    expected = [0, -0.692820, -3.464102]
    assert found.tolist() == [pytest.approx(expected, abs=1e-5)] * 2
    assert riskpo(PAIR, QuantileTracker(bundle=2), bundle=2, credit="uniform")[0].tolist() == pytest.approx(
        [0, -0.4, -2]
    )
    scored = riskpo(PAIR, QuantileTracker(bundle=2), bundle=2, credit="score")
    assert scored[1].tolist() == pytest.approx([0, -0.2, -3])


def test_the_quantiles_move_towards_their_levels():
    tracker = QuantileTracker(bundle=1)
    tracker.values = (2.0, 2.0)
    tracker.note(Outcomes.of_rewards(torch.tensor([[0.0, 1, 2, 3, 1]])))
    assert tracker.values == pytest.approx((1.96, 2.02))


def test_the_first_quantiles_are_the_batchs_own_and_later_ones_those_of_before():
    tracker = QuantileTracker(bundle=2)
    tracker.note(Outcomes.of_rewards(PAIR))
    assert tracker.values == pytest.approx((0.4, 1.6))
    again = QuantileTracker(bundle=2)
    again.load_state_dict(tracker.state_dict())
    assert again.of(torch.tensor([9.0])) == tracker.values
    torch.testing.assert_close(
        riskpo(PAIR, again, bundle=2), riskpo(PAIR, QuantileTracker(bundle=2), bundle=2)
    )


def test_advantages_do_not_fall_with_the_score_and_are_none_above_the_upper_quantile():
    scores = torch.linspace(-1, 6, 50, dtype=torch.float64)
    found = mixed_risk(scores, 1.0, 4.0, **LEVELS)
    assert (found.diff() >= -1e-12).all()
    assert (found <= 1e-12).all()
    assert found[scores >= 4].abs().max() < 1e-12


def test_without_tail_and_with_the_whole_range_it_is_the_distance_to_the_best():
    scores = torch.tensor([0.0, 1, 3, 5], dtype=torch.float64)
    found = mixed_risk(scores, 0.0, 5.0, low=0.0, high=1.0, weight=0.0)
    torch.testing.assert_close(found, scores - 5)


def test_the_control_rewards_the_best_tail():
    found = mixed_risk(torch.arange(6).double(), 1.0, 4.0, **LEVELS, tail="best")
    assert found[5] > 0
    assert found[0] == pytest.approx(-5 / 2.5)


def test_order_within_a_bundle_does_not_matter_and_a_rest_learns_nothing():
    torch.manual_seed(0)
    rewards = torch.rand(7, 4, dtype=torch.float64)
    found = riskpo(rewards, QuantileTracker(bundle=3), bundle=3)
    order = torch.tensor([2, 0, 1, 4, 5, 3, 6])
    torch.testing.assert_close(riskpo(rewards[order], QuantileTracker(bundle=3), bundle=3), found[order])
    assert not found[6].any()
    assert found[:6].any()


def test_prompts_without_a_signal_share_their_bundles_credit_only_as_published():
    rewards = torch.cat([PAIR, torch.ones(1, 3).double()])
    tracker = QuantileTracker(bundle=3)
    assert riskpo(rewards, tracker, bundle=3)[2].tolist() == pytest.approx([0, -0.4, -2])
    assert not riskpo(rewards, tracker, bundle=3, flat="zero")[2].any()


def test_an_unscored_completion_takes_its_score_out_and_equal_scores_do_not_explode():
    rewards = torch.tensor([[NAN, 0, 1], [1.0, 1, 1]], dtype=torch.float64)
    found = riskpo(rewards, QuantileTracker(bundle=2), bundle=2)
    assert not found[:, 0].any()
    assert found[:, 1].max() < 0
    tracker = QuantileTracker(bundle=2)
    tracker.values = (1.0, 3.0)
    equal = riskpo(torch.ones(2, 3).double(), tracker, bundle=2)
    assert equal.abs().max() < 10
    assert not riskpo(torch.full((2, 3), NAN), QuantileTracker(bundle=2), bundle=2).any()


def test_prompts_without_a_whole_bundle_have_no_advantage_and_are_counted():
    assert not riskpo(PAIR, QuantileTracker()).any()
    tracker = QuantileTracker(bundle=3)
    rewards = torch.rand(5, 4, dtype=torch.float64)
    assert not riskpo(rewards, tracker, bundle=3)[3:].any()
    tracker.note(Outcomes.of_rewards(rewards))
    assert tracker.metrics()["unbundled"] == 0.4
    tracker.note(Outcomes.of_rewards(rewards[:3]))
    assert tracker.metrics()["unbundled"] == 0
    assert tracker.metrics()["quantile_low"] < tracker.metrics()["quantile_high"]


def test_levels_out_of_order_and_selection_are_refused():
    assert "low = 0.9 is not below high = 0.2" in message(
        recipe="riskpo", advantage={"name": "riskpo", "low": 0.9, "high": 0.2}
    )
    assert "tear them" in message(recipe="riskpo", selection=[{"name": "accuracy_filter"}])


def test_the_recipe_keeps_its_quantiles_in_the_state():
    objective = build(recipe="riskpo", advantage={"name": "riskpo", "bundle": 2})
    outcomes = Outcomes.of_rewards(PAIR)
    before = objective.advantages(PAIR, outcomes)
    objective.note(outcomes)
    again = build(recipe="riskpo", advantage={"name": "riskpo", "bundle": 2})
    again.load_state_dict(objective.state_dict())
    worse = torch.zeros_like(PAIR)
    assert torch.equal(again.advantages(worse), objective.advantages(worse))
    torch.testing.assert_close(objective.advantages(PAIR, outcomes), before)
