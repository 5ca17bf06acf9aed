"""Composition of an objective from the parts that a config names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mm_cpgd.algorithms.checks import check_given, check_parts, check_surrogate_options
from mm_cpgd.algorithms.inputs.initial import initial_memories, initial_states
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.parts import Part, make_part

if TYPE_CHECKING:
    from mm_cpgd.config.schema import AlgorithmConfig, PartConfig


def build_objective(
    config: AlgorithmConfig, *, completions: int, max_new_tokens: int, iterations: int = 1
) -> Objective:
    """Compose the objective of a config whose recipe is already resolved.

    Args:
        config: the parts and their options.
        completions: G, completions per prompt.
        max_new_tokens: longest completion that may be sampled.
        iterations: iterations of the whole run.

    Raises:
        UserError: an unknown part or option, an invalid value, or incompatible parts.
    """
    check_surrogate_options(config.surrogate.name, list(config.surrogate.options))

    def make(kind: str, part: PartConfig) -> Part:
        return make_part(kind, part.name, part.options)

    composed = Objective(
        advantage=make("advantage", config.advantage),
        surrogate=make("surrogate", config.surrogate),
        regularizers=tuple(make("regularizers", part) for part in config.regularizers),
        aggregation=make("aggregation", config.aggregation),
        selection=tuple(make("selection", part) for part in config.selection),
        shaping=tuple(make("shaping", part) for part in config.shaping),
        max_tokens=max_new_tokens,
        token_weights=tuple(make("token_weights", part) for part in config.token_weights),
        prompts=None if config.prompts is None else make("prompts", config.prompts),
        iterations=iterations,
        replay=None if config.replay is None else make("replay", config.replay.credit),
        tempered=None if config.tempered is None else make("tempered", config.tempered.temperature),
        budget=None if config.budget is None else make("budget", config.budget),
        demonstrations=(
            None if config.demonstrations is None else make("demonstrations", config.demonstrations)
        ),
        reward_weights=None
        if config.reward_weights is None
        else make("reward_weights", config.reward_weights),
        completions=tuple(make("completions", part) for part in config.completions),
        token_advantages=tuple(make("token_advantages", part) for part in config.token_advantages),
    )
    check_parts(composed.parts, completions, max_new_tokens)
    check_given(composed.parts, config.early_answers is not None, config.empty_thought is not None)
    return replace(composed, states=initial_states(composed.parts), memories=initial_memories(composed.parts))
