"""Mixes of parts and rollouts that make no sense, refused by name before anything is loaded."""

from __future__ import annotations

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.errors import UserError

# What belongs to a whole completion and says nothing about one of its turns.
_OF_COMPLETIONS = ("components", "shaping")


def check_mixes(rollout: RolloutConfig, objective: Objective) -> None:
    """Check that what the objective's parts ask for exists in this run.

    Raises:
        UserError: names the part, what it asks for, and what to change.
    """
    chosen = rollout.environment
    asked = [name for name in _OF_COMPLETIONS if name in objective.advantage.inputs]
    if asked and chosen and chosen.returns == "by_turn":
        raise UserError(
            f"{objective.advantage.where} asks for {' and '.join(asked)} of whole completions, and "
            "rollout.environment.returns=by_turn gives every turn an advantage of its own; choose another "
            "advantage, or set rollout.environment.returns=outcome"
        )
    if objective.reward_weights and chosen and chosen.returns == "by_turn":
        raise UserError(
            f"{objective.reward_weights.where} mixes the rules' scores of whole completions anew, and "
            "rollout.environment.returns=by_turn learns from what each turn scored; set "
            "returns=outcome, or remove the part"
        )
    if objective.draws() and objective.blind.gradient:
        raise UserError(
            f"{objective.surrogate.where} draws tokens behind the prompt's picture alone, and another part "
            "runs the update behind changed pictures too; remove one of them"
        )
    bundle = objective.advantage.options.get("bundle", 1)
    if rollout.prompts < bundle:
        raise UserError(
            f"{objective.advantage.where}: bundle = {bundle} prompts are tied together, and an iteration has "
            f"rollout.prompts={rollout.prompts}; lower bundle, or raise rollout.prompts"
        )
    other = "selection: dynamic_sampling" if objective.max_rounds > 1 else "rollout.environment"
    if objective.budget and (objective.max_rounds > 1 or chosen):
        raise UserError(
            f"{objective.budget.where} deals out the completions of one rollout batch of single turns, and "
            f"does not go together with {other}; remove one of them"
        )
