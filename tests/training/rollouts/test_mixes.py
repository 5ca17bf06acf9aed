"""Mixes of parts and rollouts that are refused before a run starts."""

from pathlib import Path
from typing import Any

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


def test_demonstrations_are_only_beside_parts_that_tell_them_from_rollouts() -> None:
    check_mixes(RolloutConfig(), build(recipe="hpt"))
    refused = [
        ({"selection": [{"name": "accuracy_filter"}]}, r"selection: accuracy_filter, which drops"),
        (
            {"token_advantages": [{"name": "entropy_shaped"}]},
            r"advantages: entropy_shaped, which would",
        ),
        ({"token_weights": [{"name": "forking_tokens"}]}, r"token_weights: forking_tokens, which would"),
        ({"surrogate": {"name": "copg"}}, r"surrogate: copg, which would count"),
        ({"surrogate": {"name": "one_token"}}, r"surrogate: one_token, which draws tokens"),
        ({"regularizers": [{"name": "implicit_perception"}]}, r"that compare pictures"),
    ]
    for sections, words in refused:
        with pytest.raises(UserError, match=rf"demonstrations: hpt does not go together with .*{words}"):
            check_mixes(RolloutConfig(), build(recipe="hpt", **sections))
    for rollout, words in (
        (RolloutConfig(top_p=0.9), r"top_p, top_k and min_p"),
        (RolloutConfig(environment=EnvironmentConfig(name="any")), r"rollout\.environment, whose"),
    ):
        with pytest.raises(UserError, match=words):
            check_mixes(rollout, build(recipe="hpt"))


@pytest.mark.parametrize(
    ("rollout", "sections", "words"),
    [
        ({"environment": EnvironmentConfig(name="any")}, {}, r"rollout\.environment"),
        ({"top_p": 0.9}, {}, r"rollout\.top_p, top_k or min_p"),
        ({"ahead": 2}, {}, r"rollout\.ahead=2"),
        ({}, {"surrogate": {"name": "copg"}}, r"algorithm\.surrogate: copg, which asks for prepared"),
        ({}, {"token_advantages": [{"name": "entropy_shaped"}]}, "entropy_shaped, which compares"),
        ({}, {"token_weights": [{"name": "vppo_tokens"}]}, "parts that compare pictures"),
        ({}, {"demonstrations": {"name": "always"}}, r"algorithm\.demonstrations, rows of another source"),
    ],
)
@pytest.mark.parametrize("recipe", ["spear", "aepo"])
def test_rows_from_elsewhere_are_of_single_turns_and_of_an_objective_by_token(
    recipe: str, rollout: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    check_mixes(RolloutConfig(), build(recipe=recipe))
    with pytest.raises(UserError, match=rf"{recipe} does not go together with .*{words}"):
        check_mixes(RolloutConfig(**rollout), build(recipe=recipe, **sections))


def test_a_part_of_replay_needs_a_buffer(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def part(rewards):\n    return rewards\n", encoding="utf-8")
    objective = build(replay={"credit": {"name": f"{tmp_path / 'one.py'}:part"}})
    with pytest.raises(UserError, match=r"no entries to choose from.*memory=ReplayBuffer"):
        check_mixes(RolloutConfig(), objective)


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
