"""Every recipe builds and is the method that it is named after."""

import pytest

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.config.recipes import load_recipe, recipe_names
from mm_cpgd.config.schema import AlgorithmConfig
from mm_cpgd.errors import UserError


def build(name):
    return build_objective(AlgorithmConfig(**load_recipe(name)), completions=8, max_new_tokens=64)


def composition(name):
    objective = build(name)
    return (
        objective.advantage.name,
        objective.surrogate.name,
        [part.name for part in objective.regularizers],
        objective.aggregation.name,
    )


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_builds(name):
    assert build(name).max_tokens == 64


@pytest.mark.parametrize("name", recipe_names())
def test_only_methods_of_a_reference_policy_need_one(name):
    assert build(name).needs_reference == (
        name in ("copg", "deepseek_v32", "one_shot", "f_dpg", "dpo_online", "bvpo")
    )


def test_all_methods_of_the_study_exist():
    methods = "cpgd cpgd_equal cpgd_clip_filter pg cpg pgd grpo grpo_dual_clip rloo reinforce_pp dr_grpo dapo"
    assert set(methods.split()) <= set(recipe_names())


@pytest.mark.parametrize("name", ["cpgd", "cpgd_equal", "cpgd_clip_filter"])
def test_cpgd_drifts_are_on_without_any_further_switch(name):
    # Seen in public code: a CPGD loss without the drift, or with it off unless two switches are set.
    assert composition(name) == ("cpgd", "cpgd", ["policy_drift"], "token_mean")
    assert build(name).regularizers[0].options == {"alpha": 0.01, "cap": 2.0}


def test_the_ablations_drop_one_part_each():
    assert composition("cpg") == ("cpgd", "cpgd", [], "token_mean")
    assert composition("pgd") == ("cpgd", "policy_gradient", ["policy_drift"], "token_mean")
    assert composition("pg") == ("group_mean", "policy_gradient", [], "token_mean")


def test_baselines_are_composed_as_published():
    assert composition("grpo") == ("grpo", "ppo_clip", [], "completion_mean")
    assert composition("grpo_dual_clip") == ("grpo", "dual_clip", [], "completion_mean")
    assert composition("rloo") == ("rloo", "ppo_clip", [], "token_mean")
    assert composition("reinforce_pp") == ("reinforce_pp", "ppo_clip", [], "token_mean")
    assert composition("dr_grpo") == ("group_mean", "ppo_clip", [], "constant")
    assert composition("dapo") == ("grpo", "ppo_clip", [], "token_mean")
    assert composition("hpt") == ("group_mean", "importance", ["entropy_bonus"], "constant")


def test_dapo_clips_higher_and_samples_dynamically():
    objective = build("dapo")
    assert objective.surrogate.options == {"epsilon_low": 0.2, "epsilon_high": 0.28}
    assert objective.max_rounds == 10
    assert [part.name for part in objective.shaping] == ["overlong_penalty"]


def test_without_dynamic_sampling_there_is_one_round():
    assert build("cpgd").max_rounds == 1


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="no recipe 'grpo_dualclip'; the nearest is 'grpo_dual_clip'"):
        load_recipe("grpo_dualclip")
