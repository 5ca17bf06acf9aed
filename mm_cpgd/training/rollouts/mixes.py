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
    check_demonstrations(rollout, objective)
    other = "selection: dynamic_sampling" if objective.max_rounds > 1 else "rollout.environment"
    if objective.budget and (objective.max_rounds > 1 or chosen):
        raise UserError(
            f"{objective.budget.where} deals out the completions of one rollout batch of single turns, and "
            f"does not go together with {other}; remove one of them"
        )


def check_demonstrations(rollout: RolloutConfig, objective: Objective) -> None:
    """Check that nothing in the run takes solutions of rows for completions of the policy.

    Raises:
        UserError: names the part, and what it does not go together with.
    """
    if objective.demonstrations is None:
        return
    obstacles = [reason for reason, found in _beside_demonstrations(rollout, objective).items() if found]
    if obstacles:
        raise UserError(
            f"{objective.demonstrations.where} does not go together with {'; nor with '.join(obstacles)}. "
            "Remove it, or algorithm.demonstrations"
        )


def _beside_demonstrations(rollout: RolloutConfig, objective: Objective) -> dict[str, bool]:
    """Return for each reason against demonstrations whether it is given."""
    whole = (*objective.token_advantages, *objective.prepared_parts, *objective.step_parts)
    names = " and ".join(dict.fromkeys(part.where for part in whole))
    selection = ", ".join(part.name for part in objective.selection)
    cuts = rollout.top_p < 1 or rollout.top_k > 0 or rollout.min_p > 0
    return {
        f"algorithm.selection: {selection}, which drops prompts before they can be taught": bool(selection),
        f"{names}, which would count the solutions among the policy's completions": bool(whole),
        "algorithm.regularizers or token_weights that compare pictures": objective.blind.compares,
        "rollout.top_p, top_k and min_p, which leave no probability to some tokens of a solution": cuts,
        "rollout.environment, whose completions are conversations": rollout.environment is not None,
    }
