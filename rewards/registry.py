"""Find a reward rule by name, or in a user's own file, and bind its options.

A rule is a plain function ``f(completion, example, **options) -> Verdict | float`` under ``@rule("name")``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

from rewards.errors import RuleError
from rewards.verdict import Status, Verdict

# The modules that hold the built-in rules; loaded when a rule is first looked up.
_BUILTIN = ("rewards.accuracy", "rewards.choice", "rewards.exact", "rewards.format")


class Answerable(Protocol):
    """What a rule may ask of an example; ``data.Example`` is one."""

    @property
    def answer(self) -> str:
        """The gold answer."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The options' texts, empty for a free-form question."""


Rule = Callable[..., Any]
BoundRule = Callable[[str, Any], Verdict]
Decorated = TypeVar("Decorated", bound=Rule)
_rules: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Decorated], Decorated]:
    """Register a function as the reward rule ``name``. Raises ``RuleError`` if another one has that name."""

    def register(function: Decorated) -> Decorated:
        known = _rules.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise RuleError(f"rule {name!r} exists already, in {known.__module__}; choose another name")
        _rules[name] = function
        return function

    return register


def _load_builtin() -> None:
    for module in _BUILTIN:
        importlib.import_module(module)


def list_rules() -> dict[str, str]:
    """Every registered rule and the first line of its docstring, by name."""
    _load_builtin()
    return {
        name: (inspect.getdoc(function) or "").partition("\n")[0] for name, function in sorted(_rules.items())
    }


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"known are {', '.join(sorted(known))}"
    )


@lru_cache(maxsize=64)
def _module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_rewards_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RuleError(f"{path} is not a Python file; a rule is named path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RuleError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _from_file(reference: str) -> Rule:
    """The function of ``path/to/file.py:function``; the path is the user's own, from the config."""
    file, _, name = reference.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise RuleError(
            f"there is no file {path} (rule {reference!r}); a rule is named path/to/file.py:function"
        )
    module = _module_at(path)
    function = getattr(module, name, None)
    if not callable(function):
        defined = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise RuleError(
            f"{path} has no function {name!r}: {_nearest(name, defined) if defined else 'it defines none'}"
        )
    return function


def _find(name: str) -> Rule:
    if ".py:" in name:
        return _from_file(name)
    _load_builtin()
    if name not in _rules:
        raise RuleError(f"there is no reward rule {name!r}: {_nearest(name, list(_rules))}")
    return _rules[name]


def _check_options(name: str, function: Rule, options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if len([p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]) < 2:
        raise RuleError(
            f"rule {name!r} must take a completion and an example: def rule(completion, example, …)"
        )
    accepted = [p.name for p in parameters[2:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for option in options:
        if option not in accepted and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            hint = _nearest(option, accepted) if accepted else "it takes none"
            raise RuleError(f"rule {name!r} has no option {option!r}: {hint}")
    missing = [
        p.name
        for p in parameters[2:]
        if p.name in accepted and p.default is p.empty and p.name not in options
    ]
    if missing:
        raise RuleError(f"rule {name!r} needs the option {missing[0]!r}; write it under options")


def as_verdict(name: str, result: Any) -> Verdict:
    """A rule's result as a verdict: 1 is correct, 0 wrong, what lies between partial, None unscorable.

    Raises ``RuleError`` for anything else, also for a number that is not finite.
    """
    if isinstance(result, Verdict):
        return result
    if not isinstance(result, (int, float)) or not math.isfinite(result):
        raise RuleError(f"rule {name!r} returned {result!r}; it must return a Verdict or a finite number")
    score = float(result)
    status = Status.CORRECT if score >= 1 else Status.WRONG if score <= 0 else Status.PARTIAL
    return Verdict(score, status, None, f"{name} gave {score:g}")


def get_rule(name: str, options: Mapping[str, Any] | None = None) -> BoundRule:
    """Return ``rule(completion, example) -> Verdict`` with its options bound.

    Args:
        name: a registered name, or ``path/to/file.py:function``.
        options: the rule's own keyword arguments, checked against its signature.

    Raises:
        RuleError: unknown rule or option (names the nearest), missing option, unusable file.
    """
    bound = dict(options or {})
    function = _find(name)
    _check_options(name, function, bound)
    return lambda completion, example: as_verdict(name, function(completion, example, **bound))
