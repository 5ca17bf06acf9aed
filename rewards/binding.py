"""A rule with its options bound: checked against its signature, and every result made a verdict."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import typing
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from rewards.errors import RuleError
from rewards.verdict import Status, Verdict

Rule = Callable[..., Any]
_ALLOWED = "a finite number, or a Verdict (its score None takes the completion out)"
_SHAPE = "def rule(completion, example, …)"


def nearest(name: str, known: Iterable[str]) -> str:
    """What the writer of ``name`` may have meant, for a message."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {', '.join(sorted(known))}"
    )


def options_of(function: Rule) -> dict[str, inspect.Parameter]:
    """The options that a rule takes by name: its parameters after completion and example."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in named}


def _check_shape(name: str, function: Rule) -> inspect.Signature:
    """Return the signature of a function that takes a completion and an example."""
    if not callable(function):
        raise RuleError(f"rule {name!r} is {type(function).__name__}, not a function; write {_SHAPE}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise RuleError(f"rule {name!r} is asynchronous or a generator; write a plain {_SHAPE}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise RuleError(f"the signature of rule {name!r} cannot be read; wrap it: {_SHAPE}") from error
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = [parameter.kind for parameter in signature.parameters.values()][:2]
    if len(first) < 2 or any(kind not in positional for kind in first):
        raise RuleError(f"rule {name!r} must take a completion and an example: {_SHAPE}")
    if signature.return_annotation in (str, "str", None, "None"):
        raise RuleError(
            f"rule {name!r} says that it returns {signature.return_annotation}; allowed: {_ALLOWED}"
        )
    return signature


def _check_names(name: str, function: Rule, signature: inspect.Signature, options: Iterable[str]) -> None:
    given = list(options)
    accepted = options_of(function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for option in given:
        if option not in accepted and not takes_any:
            hint = nearest(option, accepted) if accepted else "it takes none"
            raise RuleError(f"rule {name!r} has no option {option!r}: {hint}")
    for option, parameter in accepted.items():
        if parameter.default is parameter.empty and option not in given:
            raise RuleError(f"rule {name!r} needs the option {option!r}; write it under options")


def _hint(function: Rule, parameter: inspect.Parameter) -> Any:
    """The parameter's type; ``Any`` where there is none or none that can be found at run time."""
    if parameter.annotation is parameter.empty:
        return Any
    holder = SimpleNamespace(__annotations__={"option": parameter.annotation})
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), include_extras=True)[
            "option"
        ]
    except (NameError, TypeError, AttributeError):
        return Any


def _typed(name: str, option: str, value: Any, hint: Any) -> Any:
    """The value as its parameter's type: what YAML reads as a text, ``1e-3``, becomes the number it says."""
    if hint is Any:
        return value
    # Not needed by rules without options, and slow to import.
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        kind = getattr(hint, "__name__", str(hint))
        raise RuleError(
            f"option {option!r} of rule {name!r} is {value!r}, it must be {kind}: {error.errors()[0]['msg']}"
        ) from error
    except PydanticUserError:  # a class of the user's own: nothing that could be checked
        return value


def checked_options(name: str, function: Rule, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, each as its parameter's type.

    Raises:
        RuleError: the function is no rule; an option is unknown, missing or of another type.
    """
    signature = _check_shape(name, function)
    _check_names(name, function, signature, options)
    accepted = options_of(function)
    return {
        option: _typed(name, option, value, _hint(function, accepted[option]))
        if option in accepted
        else value
        for option, value in options.items()
    }


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def as_verdict(name: str, result: Any) -> Verdict:
    """A rule's result as a verdict: 1 is correct, 0 wrong, what lies between partial.

    Raises:
        RuleError: anything else, also a score that is not finite; the message says what is allowed.
    """
    if isinstance(result, Verdict) and (result.score is None or _is_finite(result.score)):
        return result
    if isinstance(result, Verdict) or not _is_finite(result):
        got = f"{result!r} ({type(result).__name__})"
        raise RuleError(f"rule {name!r} returned {got[:120]}; allowed: {_ALLOWED}")
    value = float(result)
    status = Status.CORRECT if value >= 1 else Status.WRONG if value <= 0 else Status.PARTIAL
    return Verdict(value, status, None, f"{name} gave {value:g}")


class BoundRule:
    """``rule(completion, example) -> Verdict``. Pickles as its name and options, to be found anew elsewhere.

    Attributes:
        name: what the user called it.
        reference: what finds it from any working directory.
        options: checked, each of its parameter's type.
    """

    def __init__(self, name: str, reference: str, function: Rule, options: Mapping[str, Any]) -> None:
        self.name = name
        self.reference = reference
        self.options = checked_options(name, function, options)
        self._function = function

    def __call__(self, completion: str, example: Any) -> Verdict:
        """Score one completion. Raises what the rule raises, and ``RuleError`` for a result that is none."""
        return as_verdict(self.name, self._function(completion, example, **self.options))

    def __reduce__(self) -> tuple[Callable[..., BoundRule], tuple[str, dict[str, Any]]]:
        from rewards.registry import get_rule

        return get_rule, (self.reference, self.options)
