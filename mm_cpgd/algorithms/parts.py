"""Registry of the parts: lookup by function name, with options validated against the signature.

A part is a function whose positional parameters are inputs from the objective, selected by their names
(``INPUTS`` of its kind), and whose keyword-only parameters are the options that a config may set, with types
and limits as annotated. A name such as ``path/to/file.py:function`` refers to a function in the user's file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mm_cpgd.algorithms import (
    advantages,
    aggregation,
    completions,
    regularizers,
    selection,
    surrogates,
    token_advantages,
    token_weights,
)
from mm_cpgd.algorithms.by_row import budgets, replay, trackers
from mm_cpgd.algorithms.inputs.draws import DRAWN
from mm_cpgd.algorithms.inputs.outcomes import CLOCK, OUTCOMES
from mm_cpgd.algorithms.inputs.schedules import Schedule, is_schedule, options_at, schedule_of
from mm_cpgd.algorithms.methods import (
    bundles,
    consistency,
    contrastive,
    demonstrations,
    entropy_band,
    front,
    given,
    group_targets,
    influence,
    many_rewards,
    one_token,
    perception,
    steps,
    tempered,
    trust_regions,
)
from mm_cpgd.algorithms.part_info import Description, description_of
from mm_cpgd.errors import UserError
from rewards.messages import closest
from rewards.registry import user_module


def _by_name(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "advantage": _by_name(
        advantages.cpgd,
        advantages.grpo,
        advantages.rloo,
        advantages.group_mean,
        advantages.reinforce_pp,
        advantages.bnpo,
        advantages.maxrl,
        many_rewards.gdpo,
        many_rewards.scale_rl,
        advantages.one,
        trackers.spo,
        consistency.copo,
        bundles.riskpo,
    ),
    "surrogate": _by_name(
        surrogates.policy_gradient,
        surrogates.cpgd,
        surrogates.ppo_clip,
        surrogates.dual_clip,
        surrogates.importance,
        surrogates.exp_advantage,
        surrogates.cispo,
        surrogates.gspo,
        contrastive.copg,
        trust_regions.gmpo,
        trust_regions.sapo,
        trust_regions.dppo,
        one_token.one_token,
        one_token.one_token_exact,
    ),
    "regularizers": _by_name(
        regularizers.policy_drift,
        regularizers.mirror,
        regularizers.kl,
        regularizers.entropy_bonus,
        regularizers.entropy_control,
        entropy_band.entropy_band,
        regularizers.kl_cov,
        perception.implicit_perception,
        perception.entropy_penalty,
        perception.double_entropy,
    ),
    "token_weights": _by_name(
        token_weights.forking_tokens,
        token_weights.impact_tokens,
        token_weights.clip_cov,
        token_weights.off_policy_mask,
        perception.vppo_tokens,
        perception.vppo_completions,
        perception.pgpo,
    ),
    "aggregation": _by_name(
        aggregation.token_mean,
        aggregation.completion_mean,
        aggregation.completion_sum,
        aggregation.constant,
    ),
    "selection": _by_name(selection.accuracy_filter, selection.dynamic_sampling),
    "shaping": _by_name(selection.overlong_penalty),
    "prompts": _by_name(selection.variance_aware, trackers.tracker_variance),
    "budget": _by_name(budgets.knapsack),
    "demonstrations": _by_name(demonstrations.hpt, demonstrations.always),
    "replay": _by_name(replay.spear),
    "tempered": _by_name(tempered.aepo),
    "reward_weights": _by_name(front.hypervolume_scale, influence.advantage_influence),
    "completions": _by_name(completions.drop_truncated, completions.right_only, completions.max_variance),
    "token_advantages": _by_name(
        token_advantages.entropy_shaped,
        token_advantages.conflict_tokens,
        group_targets.optimal_baseline,
        group_targets.f_divergence,
        group_targets.preference,
        given.brpo,
        given.bvpo,
        steps.empg,
    ),
}
_TOKEN_INPUTS = frozenset(
    {
        *("log_ratio", "reference_log_ratio", "advantages", "entropy", "mask", "lengths", "max_tokens"),
        *("old_logprobs", "prepared", "state"),
        *("blind_log_ratio", "blind_logprobs", "blind_entropy"),
        *CLOCK,
    }
)
INPUTS: dict[str, frozenset[str]] = {
    "advantage": OUTCOMES | {"state", "memory"},
    "surrogate": _TOKEN_INPUTS | DRAWN,
    "regularizers": _TOKEN_INPUTS,
    "token_weights": frozenset(
        {
            *("old_logprobs", "old_entropy", "advantages", "seed", "log_ratio", "mask"),
            *("blind_logprobs", "completion"),
        }
    )
    | CLOCK,
    "aggregation": frozenset({"mask", "lengths", "max_tokens"}) | CLOCK,
    "selection": frozenset({"accuracy", "rewards", "lengths", "finished", "components"}) | CLOCK,
    "shaping": frozenset({"lengths", "max_tokens"}) | CLOCK,
    "prompts": frozenset({"accuracy", "diversity", "memory", "row_count"}) | CLOCK,
    "budget": frozenset({"rows", "completions", "memory"}) | CLOCK,
    "demonstrations": OUTCOMES | {"teachable", "memory"},
    "replay": frozenset({"rewards", "advantages", "ages", "lengths", "rows", "memory", "seed"}) | CLOCK,
    "tempered": frozenset({"state", "completions"}) | CLOCK,
    "reward_weights": OUTCOMES | {"memory"},
    "completions": OUTCOMES | {"advantages", "memory"},
    "token_advantages": frozenset(
        {
            *("advantages", "base_advantages", "old_logprobs", "old_entropy", "tokens", "mask"),
            *("prompt_of", "completion_of", "rewards", "accuracy", "finished", "state"),
            *("pieces", "reference_logprobs"),
            *("early_scores", "early_budgets", "thinking", "empty_thought"),
        }
    )
    | CLOCK,
}
"""Inputs that a part of each kind may take, by the names of its positional parameters."""


@dataclass(frozen=True)
class Part:
    """A function with its options.

    Attributes:
        kind: the key under ``algorithm`` in the config.
        name: as written in the config.
        function: the pure function.
        inputs: names of the values that the objective passes to it.
        options: all keyword-only parameters, defaults included.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def description(self) -> Description:
        """Formula, source and gradient."""
        return description_of(self.function)

    @property
    def every_step(self) -> bool:
        """Whether a token weight is computed at every step, from ``log_ratio``, and not once before."""
        return self.kind == "token_weights" and "log_ratio" in self.inputs

    @property
    def where(self) -> str:
        """Name of the part in messages."""
        return f"algorithm.{self.kind}: {self.name}"

    def __call__(self, available: Mapping[str, Any]) -> Any:
        """Call the function with its inputs, taken from the available values by name.

        Options that are schedules have their value at ``progress``; where none is available, their first.
        """
        options = options_at(self.options, available.get("progress", 0.0))
        return self.function(*(available[name] for name in self.inputs), **options)

    def prepare(self, available: Mapping[str, Any]) -> Any:
        """Call the function of the whole mini-batch: the description's ``prepare``, or the part's own one."""
        function = self.description.prepare
        if function is None:
            return self(available)
        options = options_at(self.options, available.get("progress", 0.0))
        return function(*(available[name] for name in self.prepare_inputs), **options_for(function, options))

    @property
    def step_inputs(self) -> tuple[str, ...]:
        """Names of the inputs of the description's ``of_groups``; none without one."""
        function = self.description.of_groups
        if function is None:
            return ()
        parameters = inspect.signature(function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)

    def of_groups(self, available: Mapping[str, Any]) -> Any:
        """Call the description's ``of_groups`` with its inputs and the part's options."""
        function = self.description.of_groups
        assert function is not None
        options = options_for(function, options_at(self.options, available.get("progress", 0.0)))
        return function(*(available[name] for name in self.step_inputs), **options)

    @property
    def prepare_inputs(self) -> tuple[str, ...]:
        """Names of the values that ``prepare`` takes; of a part without a function of its own, ``inputs``."""
        function = self.description.prepare
        if function is None:
            return self.inputs
        parameters = inspect.signature(function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


def make_part(kind: str, name: str, options: Mapping[str, Any]) -> Part:
    """Return the part of this name with these options.

    Raises:
        UserError: an unknown part or option (the nearest is named), a missing or invalid value, or a function
            in a file that cannot be loaded or is no part of this kind.
    """
    function = _find(kind, name)
    parameters = inspect.signature(function).parameters.values()
    allowed = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    inputs = tuple(p.name for p in parameters if p.name not in allowed)
    part = Part(kind, name, function, inputs, {})
    _check_inputs(part)
    _check_names(part, options, allowed)
    values = {p.name: options.get(p.name, p.default) for p in allowed.values()}
    types = get_type_hints(function, include_extras=True)
    checked = {key: _checked(part, key, value, types.get(key, Any)) for key, value in values.items()}
    return Part(kind, name, function, inputs, checked)


def options_for(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that another function takes too."""
    names = inspect.signature(function).parameters
    return {key: value for key, value in options.items() if key in names}


def _find(kind: str, name: str) -> Callable[..., Any]:
    if is_in_file(name):
        return function_in_file(f"algorithm.{kind}", name)
    known = PARTS[kind]
    if name not in known:
        raise UserError(f"algorithm.{kind}: there is no part {name!r}; {_nearest(name, known)}")
    return known[name]


def _check_inputs(part: Part) -> None:
    """Check that a user's function takes only inputs that the objective provides."""
    possible = INPUTS[part.kind]
    for name in part.inputs:
        if name not in possible:
            raise UserError(
                f"{part.where} takes {name!r}, which is no input of parts of this kind; "
                f"{_nearest(name, possible)} Options follow a * in the signature."
            )
    once = {"old_entropy", "seed"} & set(part.inputs)
    if part.every_step and once:
        raise UserError(
            f"{part.where} takes log_ratio, which changes at every step, and {', '.join(sorted(once))}, "
            "which only a part that is computed before the first step gets; write two parts, whose weights "
            "are multiplied."
        )
    keywords = {"prepared": "prepare", "state": "state", "memory": "memory", **dict.fromkeys(DRAWN, "draws")}
    for name, keyword in keywords.items():
        found = getattr(part.description, keyword) or (name == "prepared" and part.description.of_groups)
        if name in part.inputs and not found:
            raise UserError(
                f"{part.where} takes {name!r}; declare what computes it with @described(…, {keyword}=…)."
            )


def _check_names(part: Part, options: Mapping[str, Any], allowed: Mapping[str, inspect.Parameter]) -> None:
    """Check that every given option exists and that every option without a default is given."""
    for key in options:
        if key not in allowed:
            advice = _nearest(key, allowed) if allowed else "it takes no options."
            raise UserError(f"{part.where} has no option {key!r}; {advice}")
    for key, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise UserError(f"{part.where} needs the option {key!r}; set it next to the name.")


def _checked(part: Part, key: str, value: Any, annotation: Any) -> Any:
    """Validate the value and convert it to the annotated type; of a schedule, both ends."""
    if is_schedule(value):
        return _scheduled(part, key, value, annotation)
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{part.where}: {key} = {value!r} is not possible. {reason}.") from None


# Options that are read once, when the run is built.
_FIXED_OPTIONS = {"max_rounds", "share"}
# Factors of a whole term: 0, which is no value by itself, may be an end of their schedules.
_FACTORS = {"coefficient", "alpha", "penalty"}


def _scheduled(part: Part, key: str, value: Mapping[str, Any], annotation: Any) -> Schedule:
    given = [value["from"], value["to"]]
    fades = key in _FACTORS and 0 in given
    ends = [0.0 if fades and end == 0 else _checked(part, key, end, annotation) for end in given]
    numbers = all(isinstance(end, float) for end in ends)
    fixed = key in _FIXED_OPTIONS and part.kind in ("selection", "prompts")
    if not numbers or fixed or part.description.state or part.description.memory:
        raise UserError(
            f"{part.where}: {key} cannot be a schedule, only a fixed value: schedules are for options that "
            "are real numbers and of parts without a state or memory."
        )
    try:
        return schedule_of(value, *ends)
    except ValueError as error:
        raise UserError(f"{part.where}: {key}: {error}.") from None


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the most similar name, and all of them."""
    every = sorted(names)
    return f"the nearest is {closest(name, every, cutoff=0.0)!r}. Possible: {', '.join(every)}."


_HOW = "name a part of your own as path/to/file.py:function"


def is_in_file(name: str) -> bool:
    """Return whether a part's name refers to a function in a file."""
    return ".py:" in name


def function_in_file(where: str, reference: str) -> Callable[..., Any]:
    """Return the function that ``path/to/file.py:function`` refers to; the file is executed as by any import.

    Args:
        where: config key, for messages.
        reference: path (relative to the working directory) and function name.

    Raises:
        UserError: no such file or function, or the file cannot be imported.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"{where}: there is no file {path} ({reference!r}); {_HOW}")
    found = vars(user_module(path, UserError, _HOW))
    functions = {key: value for key, value in found.items() if inspect.isfunction(value)}
    if name not in functions:
        near = closest(name, functions, cutoff=0.0)
        advice = f"the nearest is {near!r}" if near else "it defines none"
        raise UserError(f"{where}: {path} has no function {name!r}: {advice}")
    return functions[name]
