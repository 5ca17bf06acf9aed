"""Mixes of parts and rollouts that are refused before a run starts."""

from pathlib import Path

import pytest

from mm_cpgd.config.rollout import EnvironmentConfig, RolloutConfig
from mm_cpgd.errors import UserError
from mm_cpgd.training.rollouts.mixes import check_mixes
from tests.fakes.objectives import build

PART = "def part(rewards, components):\n    return rewards\n"


def test_scores_of_rules_are_not_those_of_turns(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(PART, encoding="utf-8")
    objective = build(advantage={"name": f"{tmp_path / 'one.py'}:part"})
    environment = EnvironmentConfig(name="any", returns="by_turn")
    check_mixes(RolloutConfig(), objective)
    check_mixes(RolloutConfig(environment=environment), build())
    with pytest.raises(UserError, match=r"asks for components of whole completions.*returns=by_turn"):
        check_mixes(RolloutConfig(environment=environment), objective)


def test_a_budget_is_of_one_rollout_batch_of_single_turns() -> None:
    check_mixes(RolloutConfig(), build(recipe="knapsack"))
    again = build(recipe="knapsack", selection=[{"name": "dynamic_sampling"}])
    with pytest.raises(
        UserError, match=r"knapsack deals out .* go together with selection: dynamic_sampling"
    ):
        check_mixes(RolloutConfig(), again)
    environment = EnvironmentConfig(name="any")
    with pytest.raises(UserError, match=r"together with rollout\.environment"):
        check_mixes(RolloutConfig(environment=environment), build(recipe="knapsack"))


def test_an_iteration_without_a_whole_bundle_is_refused() -> None:
    check_mixes(RolloutConfig(prompts=7), build(recipe="riskpo"))
    with pytest.raises(UserError, match=r"bundle = 5 prompts .* rollout\.prompts=4; lower bundle"):
        check_mixes(RolloutConfig(prompts=4), build(recipe="riskpo"))


def test_draws_are_not_made_behind_changed_pictures_too() -> None:
    with pytest.raises(UserError, match="draws tokens behind the prompt's picture alone"):
        check_mixes(RolloutConfig(), build(recipe="papo_both", surrogate={"name": "one_token"}))


@pytest.mark.parametrize("recipe", ["drw_hypervolume", "drw_influence"])
def test_rules_are_not_mixed_anew_for_single_turns(recipe: str) -> None:
    check_mixes(RolloutConfig(), build(recipe=recipe))
    environment = EnvironmentConfig(name="any", returns="by_turn")
    with pytest.raises(UserError, match=r"algorithm\.reward_weights: .* set returns=outcome"):
        check_mixes(RolloutConfig(environment=environment), build(recipe=recipe))
