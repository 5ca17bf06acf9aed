"""Compatibility checks of an objective's parts: each error says why and what to do."""

import pytest

from tests.fakes.objectives import build, message


@pytest.mark.parametrize("recipe", ["cpgd", "pg", "grpo", "rloo", "dr_grpo", "maxrl"])
def test_one_completion_with_a_group_baseline(recipe):
    assert "needs rollout.completions >= 2; it is 1." in message(recipe=recipe, completions=1)


def test_one_completion_with_the_group_form_of_reinforce_pp():
    text = message(
        recipe="reinforce_pp", completions=1, advantage={"name": "reinforce_pp", "baseline": "group"}
    )
    assert "needs rollout.completions >= 2" in text


def test_one_completion_is_enough_for_reinforce_pp():
    assert build(recipe="reinforce_pp", completions=1).advantage.name == "reinforce_pp"


@pytest.mark.parametrize("selection", ["dynamic_sampling", "accuracy_filter"])
def test_one_completion_with_a_selection_by_group(selection):
    text = message(recipe="reinforce_pp", completions=1, selection=[{"name": selection}])
    assert f"algorithm.selection: {selection} compares the completions" in text


@pytest.mark.parametrize("surrogate", ["cpgd", "policy_gradient"])
@pytest.mark.parametrize("option", [{"bound": 3.0}, {"dual_clip": True}])
def test_a_dual_clip_on_a_log_ratio_surrogate(surrogate, option):
    assert f"{surrogate} takes no dual clip" in message(surrogate={"name": surrogate, **option})


def test_filter_bounds_in_the_wrong_order():
    text = message(selection=[{"name": "accuracy_filter", "low": 0.9, "high": 0.1}])
    assert "low = 0.9 is above high = 0.1" in text


def test_an_overlong_buffer_longer_than_the_completion():
    text = message(shaping=[{"name": "overlong_penalty", "buffer": 100}])
    assert "buffer = 100 is longer than rollout.max_new_tokens = 64" in text


def test_the_gradient_of_k1_would_be_noise():
    text = message(regularizers=[{"name": "kl", "coefficient": 0.1, "estimator": "k1"}])
    assert "averages to 0" in text
    kl = {"name": "kl", "coefficient": 0.1, "estimator": "k1", "gradient": "correct"}
    assert build(regularizers=[kl]).needs_reference


def test_the_same_regularizer_twice():
    text = message(regularizers=[{"name": "policy_drift"}, {"name": "policy_drift", "alpha": 0.001}])
    assert text == "algorithm.regularizers: policy_drift is listed 2 times; list it once."
