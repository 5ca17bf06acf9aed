"""Mixes of parts and rollouts that make no sense, refused by name before anything is loaded."""

from __future__ import annotations

from mm_cpgd.algorithms.by_row.replay import ReplayBuffer
from mm_cpgd.algorithms.inputs.outcomes import CLOCK
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.parts import Part
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.errors import UserError

# What belongs to a whole completion and says nothing about one of its turns.
_OF_COMPLETIONS = ("components", "shaping")


# Inputs of a surrogate that rows from elsewhere have.
_OF_ROWS = {"log_ratio", "old_logprobs", "advantages", "mask", "lengths", "max_tokens"} | CLOCK


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
    for part in (objective.replay, objective.tempered):
        if part is not None:
            _check_elsewhere(part, rollout, objective)


def _check_elsewhere(part: Part, rollout: RolloutConfig, objective: Objective) -> None:
    """Check what rows from elsewhere need: single turns, whole distributions, and an objective by token.

    Raises:
        UserError: names the part and everything that it does not go together with.
    """
    surrogate = objective.surrogate
    strange = sorted(set(surrogate.inputs) - _OF_ROWS)
    whole = ", ".join(one.where for one in (*objective.token_advantages, *objective.step_parts))
    obstacles = {
        "rollout.environment: conversations of several turns": rollout.environment is not None,
        "rollout.top_p, top_k or min_p, which leave each policy and temperature other tokens": (
            rollout.top_p < 1 or rollout.top_k > 0 or rollout.min_p > 0
        ),
        f"rollout.ahead={rollout.ahead}, which samples before the updates that decide on them": (
            rollout.ahead > 0
        ),
        f"{surrogate.where}, which asks for {', '.join(strange)}": bool(strange),
        f"{whole}, which compares the completions of a group": bool(whole),
        "parts that compare pictures": objective.blind.compares,
        "algorithm.demonstrations, rows of another source": objective.demonstrations is not None,
    }
    if found := [text for text, present in obstacles.items() if present]:
        raise UserError(f"{part.where} does not go together with {'; nor with '.join(found)}")
    memory = part.description.memory
    if part.kind == "replay" and not (isinstance(memory, type) and issubclass(memory, ReplayBuffer)):
        raise UserError(
            f"{part.where} has no entries to choose from; declare @described(…, memory=ReplayBuffer), from "
            "mm_cpgd.algorithms.by_row.replay, or a subclass of it"
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
        f"{objective.surrogate.where}, which draws tokens of completions": objective.draws() is not None,
        "rollout.top_p, top_k and min_p, which leave no probability to some tokens of a solution": cuts,
        "rollout.environment, whose completions are conversations": rollout.environment is not None,
    }
