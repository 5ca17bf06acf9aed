"""Lookup of parts by name, and validation of their options."""

from tests.fakes.objectives import build, message


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


def test_a_drift_of_weight_zero_is_an_error():
    assert "alpha = 0.0 is not possible" in message(regularizers=[{"name": "policy_drift", "alpha": 0.0}])


def test_a_needed_option_that_is_missing():
    assert message(regularizers=[{"name": "kl"}]) == (
        "algorithm.regularizers: kl needs the option 'coefficient'; set it next to the name."
    )


def test_numbers_written_as_yaml_strings_are_numbers():
    # YAML 1.1 reads 1e-3 without a dot as a string.
    objective = build(regularizers=[{"name": "policy_drift", "alpha": "1e-3"}])
    assert objective.regularizers[0].options["alpha"] == 1e-3
