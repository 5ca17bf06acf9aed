"""What cannot be composed is an error that says why and what to do."""

import pytest

from mm_cpgd.algorithms.objective import build_objective
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import AlgorithmConfig
from mm_cpgd.errors import UserError


def build(completions=8, max_new_tokens=64, recipe="cpgd", **sections):
    config = AlgorithmConfig(**{**load_recipe(recipe), **sections})
    return build_objective(config, completions=completions, max_new_tokens=max_new_tokens)


def message(**sections):
    with pytest.raises(UserError) as caught:
        build(**sections)
    return str(caught.value)


def test_an_unknown_part_names_the_nearest():
    text = message(surrogate={"name": "ppo_clp"})
    assert text.startswith("algorithm.surrogate: there is no part 'ppo_clp'; the nearest is 'ppo_clip'.")


def test_an_unknown_option_names_the_nearest():
    text = message(surrogate={"name": "cpgd", "epsilon_hi": 0.3})
    assert text.startswith(
        "algorithm.surrogate: cpgd has no option 'epsilon_hi'; the nearest is 'epsilon_high'."
    )


def test_an_option_of_a_part_that_takes_none():
    text = message(aggregation={"name": "token_mean", "length": 3})
    assert text == "algorithm.aggregation: token_mean has no option 'length'; it takes no options."


def test_a_value_of_the_wrong_type_is_named():
    text = message(advantage={"name": "cpgd", "weight": "sdt"})
    assert "algorithm.advantage: cpgd: weight = 'sdt' is not possible." in text
    assert "'equal', 'std' or 'clip_filter'" in text


def test_a_value_out_of_range_is_named():
    text = message(surrogate={"name": "cpgd", "epsilon_low": 1.0})
    assert text == (
        "algorithm.surrogate: cpgd: epsilon_low = 1.0 is not possible. Input should be less than 1."
    )


def test_a_drift_of_weight_zero_is_an_error_and_not_silently_off():
    assert "alpha = 0.0 is not possible" in message(regularizers=[{"name": "policy_drift", "alpha": 0.0}])


def test_a_needed_option_that_is_missing():
    assert message(regularizers=[{"name": "kl"}]) == (
        "algorithm.regularizers: kl needs the option 'coefficient'; write it beside the name."
    )


@pytest.mark.parametrize("recipe", ["cpgd", "pg", "grpo", "rloo", "dr_grpo"])
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


def test_filter_bounds_the_wrong_way_round():
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
    assert text == "algorithm.regularizers: policy_drift is written 2 times; write it once."


def test_numbers_written_as_yaml_strings_are_numbers():
    # YAML 1.1 reads 1e-3 without a dot as a string.
    objective = build(regularizers=[{"name": "policy_drift", "alpha": "1e-3"}])
    assert objective.regularizers[0].options["alpha"] == 1e-3
