"""Conditions of the study of methods: each loads, changes what it names, and wrong rewards are wrong."""

from __future__ import annotations

import pytest

from data import Example
from mm_cpgd.config.recipes import recipe_names
from mm_cpgd.errors import UserError
from mm_cpgd.study.conditions import CONDITIONS, condition_named, conditions_named
from mm_cpgd.study.flipped import flipped
from mm_cpgd.study.grid import MAX_ROUNDS, Stress, Trial, config_of, method_named
from mm_cpgd.study.methods import methods_of
from mm_cpgd.training.setup import build_run_objective

NAMES = methods_of(None, tuple(CONDITIONS))


def config(name, tmp_path):
    return config_of(Trial(name, Stress(2e-5, 4), 1), tmp_path)


@pytest.mark.parametrize("name", [*NAMES, *(name for name in recipe_names() if name not in NAMES)])
def test_every_method_of_the_study_composes_an_objective(name, tmp_path):
    found = config(name, tmp_path)
    assert build_run_objective(found).max_rounds <= MAX_ROUNDS
    assert found.algorithm.recipe == name.partition("@")[0]


def test_conditions_change_what_they_name(tmp_path):
    assert config("cpgd@alpha_0.3", tmp_path).algorithm.regularizers[0].options["alpha"] == 0.3
    assert config("grpo@ahead_4", tmp_path).rollout.ahead == 4
    assert config("cpg@constant", tmp_path).algorithm.aggregation.name == "constant"
    both = config("grpo@tokens_28", tmp_path).algorithm
    assert (both.aggregation.name, both.surrogate.options["epsilon_high"]) == ("token_mean", 0.28)
    assert config("grpo@replaced", tmp_path).algorithm.selection[0].options["max_rounds"] == MAX_ROUNDS
    wrong = config("rloo@wrong_30", tmp_path).rewards
    assert [(one.name or one.rule, one.weight) for one in wrong] == [
        ("checked", 1.0), ("format", 0.5), ("accuracy", 0.0)
    ]  # fmt: skip
    assert wrong[0].options == {"share": 0.3}


def test_wrong_rewards_are_the_opposite_for_their_share_of_the_answers():
    rows = [Example(f"row-{n}", "Which?", "A") for n in range(2000)]
    right, wrong = "<answer>A</answer>", "<answer>B</answer>"

    def score(text, row, share):
        found = flipped(text, row, share)
        return found if isinstance(found, float) else found.score

    assert [score(right, rows[0], 0.0), score(wrong, rows[0], 0.0)] == [1.0, 0.0]
    assert [score(right, rows[0], 1.0), score(wrong, rows[0], 1.0)] == [0.0, 1.0]
    turned = [score(right, row, 0.3) == 0.0 for row in rows]
    # Four standard errors of a share of 0.3 among 2000.
    assert abs(sum(turned) / len(rows) - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    assert turned == [score(right, row, 0.3) == 0.0 for row in rows]
    assert turned != [score(wrong, row, 0.3) == 1.0 for row in rows]


def test_recipes_and_conditions_choose_the_methods():
    assert methods_of(None)[0] == "grpo"
    assert sorted(methods_of(None)) == recipe_names()
    assert methods_of(["gspo"]) == ("grpo", "gspo")
    chosen = methods_of(["cpgd", "gspo"], ("drift", "wrong"))
    assert "gspo@wrong_10" in chosen
    assert "cpgd@alpha_1" in chosen
    assert "gspo@alpha_1" not in chosen
    assert not any(name.startswith("pgd") for name in chosen)


def test_wrong_choices_are_refused():
    with pytest.raises(UserError, match="there is no recipe 'gsppo'; the nearest is 'gspo'"):
        methods_of(["gsppo"])
    with pytest.raises(UserError, match="fits none of the recipes gspo; add one of cpgd, pgd"):
        methods_of(["gspo"], ("drift",))
    with pytest.raises(UserError, match="choose of wrong, stale"):
        conditions_named("wrongs")
    with pytest.raises(UserError, match="names no grid"):
        conditions_named(",")
    with pytest.raises(UserError, match="wrong_10"):
        condition_named("wrong_1")
    with pytest.raises(UserError, match="no recipe 'cpgdd'"):
        method_named("cpgdd@wrong_10")
