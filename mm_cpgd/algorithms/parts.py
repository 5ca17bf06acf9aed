"""Parts of the algorithm, found by the name of their function, with options checked against its signature.

The rule that makes a function a part: what the objective hands in are positional parameters, chosen by their
names (``log_ratio``, ``mask``, …); what a config may write are keyword-only parameters, with types and limits
as annotated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mm_cpgd.algorithms import advantages, aggregation, regularizers, selection, shaping, surrogates
from mm_cpgd.errors import UserError


def _by_name(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "advantage": _by_name(
        advantages.cpgd, advantages.grpo, advantages.rloo, advantages.group_mean, advantages.reinforce_pp
    ),
    "surrogate": _by_name(
        surrogates.policy_gradient, surrogates.cpgd, surrogates.ppo_clip, surrogates.dual_clip
    ),
    "regularizers": _by_name(regularizers.policy_drift, regularizers.kl),
    "aggregation": _by_name(aggregation.token_mean, aggregation.completion_mean, aggregation.constant),
    "selection": _by_name(selection.accuracy_filter, selection.dynamic_sampling),
    "shaping": _by_name(shaping.overlong_penalty),
}


@dataclass(frozen=True)
class Part:
    """A function with its options.

    Attributes:
        kind: the key under ``algorithm`` in the config.
        function: the pure function.
        inputs: names of the values that the objective hands in.
        options: all keyword-only parameters, defaults included.
    """

    kind: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name in the config."""
        return self.function.__name__

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"algorithm.{self.kind}: {self.name}"

    def __call__(self, available: Mapping[str, Any]) -> Any:
        """Call the function with the inputs it names, taken from those available."""
        return self.function(*(available[name] for name in self.inputs), **self.options)


def make_part(kind: str, name: str, options: Mapping[str, Any]) -> Part:
    """The part of this name with these options.

    Raises:
        UserError: an unknown part or option (names the nearest), a missing or impossible value.
    """
    known = PARTS[kind]
    if name not in known:
        raise UserError(f"algorithm.{kind}: there is no part {name!r}; {_nearest(name, known)}")
    function = known[name]
    parameters = inspect.signature(function).parameters.values()
    allowed = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    inputs = tuple(p.name for p in parameters if p.name not in allowed)
    part = Part(kind, function, inputs, {})
    _check_names(part, options, allowed)
    values = {p.name: options.get(p.name, p.default) for p in allowed.values()}
    types = get_type_hints(function, include_extras=True)
    checked = {key: _checked(part, key, value, types[key]) for key, value in values.items()}
    return Part(kind, function, inputs, checked)


def _check_names(part: Part, options: Mapping[str, Any], allowed: Mapping[str, inspect.Parameter]) -> None:
    """Every written option exists, and every option without a default is written."""
    for key in options:
        if key not in allowed:
            advice = _nearest(key, allowed) if allowed else "it takes no options."
            raise UserError(f"{part.where} has no option {key!r}; {advice}")
    for key, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise UserError(f"{part.where} needs the option {key!r}; write it beside the name.")


def _checked(part: Part, key: str, value: Any, annotation: Any) -> Any:
    """The value in the annotated type."""
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{part.where}: {key} = {value!r} is not possible. {reason}.") from None


def _nearest(name: str, names: Iterable[str]) -> str:
    """Advice that names the most similar one, and all."""
    every = sorted(names)
    near = get_close_matches(name, every, n=1, cutoff=0.0)
    return f"the nearest is {near[0]!r}. Possible: {', '.join(every)}."
