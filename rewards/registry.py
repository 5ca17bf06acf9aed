"""Find a reward rule: a built-in one by name, an installed one, or a function in a user's own file.

A rule is a plain function ``f(completion, example, **options) -> Verdict | float`` under ``@rule("name")``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, overload

from rewards.binding import BoundRule, Rule, as_verdict, nearest
from rewards.errors import RuleError
from rewards.user_files import user_module

__all__ = ["Answerable", "BoundRule", "Rule", "as_verdict", "find_rule", "get_rule", "list_rules", "rule"]

# The modules that hold the built-in rules; loaded when a rule is first looked up.
_BUILTIN = tuple(
    f"rewards.{module}"
    for module in (
        "accuracy", "boxes", "captions", "choice", "counting", "exact", "format", "json_schema", "language",
        "length", "program_output", "repetition", "temporal_iou", "tolerance",
    )
)  # fmt: skip
# Packages offer rules under this name: [project.entry-points."mm_cpgd.rewards"] brevity = "package:function".
GROUP = "mm_cpgd.rewards"
_HOW = "a rule is named path/to/file.py:function"


class Answerable(Protocol):
    """What a rule may ask of an example; ``data.Example`` is one."""

    @property
    def answer(self) -> str:
        """The gold answer."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The options' texts, empty for a free-form question."""


Decorated = TypeVar("Decorated", bound=Rule)
_rules: dict[str, Rule] = {}


@overload
def rule(name: str) -> Callable[[Decorated], Decorated]: ...
@overload
def rule(name: Decorated) -> Decorated: ...
def rule(name: str | Decorated) -> Callable[[Decorated], Decorated] | Decorated:
    """Register a function as a reward rule: ``@rule("name")``, or ``@rule`` under the function's own name.

    Raises:
        RuleError: another rule has that name.
    """
    if not isinstance(name, str):
        return rule(name.__name__)(name)

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


def _installed() -> dict[str, list[EntryPoint]]:
    """What installed packages offer, by name; a name may be offered by several."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _load_installed(name: str, entries: list[EntryPoint]) -> Rule:
    if len({entry.value for entry in entries}) > 1:
        offers = " and ".join(entry.value for entry in entries)
        raise RuleError(
            f"rule {name!r} is offered by {offers}; uninstall one, or name a function by its file"
        )
    try:
        return cast(Rule, entries[0].load())
    except Exception as error:
        raise RuleError(
            f"rule {name!r} is installed as {entries[0].value} and cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error


def list_rules() -> dict[str, str]:
    """Every rule that has a name and the first line of its docstring, by name; installed ones included."""
    _load_builtin()
    listed = {name: _summary(function) for name, function in _rules.items()}
    for name, entries in _installed().items():
        try:
            listed.setdefault(name, _summary(_load_installed(name, entries)))
        except RuleError as error:
            listed.setdefault(name, str(error))
    return dict(sorted(listed.items()))


def _summary(function: Rule) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _from_file(reference: str) -> tuple[str, Rule]:
    """The function of ``path/to/file.py:function`` or of its ``@rule``; the path is the user's own."""
    file, _, name = reference.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise RuleError(f"there is no file {path} (rule {reference!r}); {_HOW}")
    module = user_module(path, RuleError, _HOW)
    registered = {key: f for key, f in _rules.items() if f.__module__ == module.__name__}
    found = getattr(module, name, registered.get(name))
    if found is None:
        defined = [key for key, value in vars(module).items() if inspect.isfunction(value)] + list(registered)
        raise RuleError(
            f"{path} has no function {name!r}: {nearest(name, defined) if defined else 'it defines none'}"
        )
    return f"{path}:{name}", found


def find_rule(name: str) -> tuple[str, Rule]:
    """Return what finds the rule from any working directory, and the function.

    Raises:
        RuleError: unknown rule (names the nearest), unusable file or installed package.
    """
    if ".py:" in name:
        return _from_file(name)
    _load_builtin()
    if name in _rules:
        return name, _rules[name]
    installed = _installed()
    if name in installed:
        return name, _load_installed(name, installed[name])
    raise RuleError(f"there is no reward rule {name!r}: {nearest(name, [*_rules, *installed])}")


def get_rule(name: str, options: Mapping[str, Any] | None = None) -> BoundRule:
    """Return ``rule(completion, example) -> Verdict`` with its options bound.

    Args:
        name: a built-in or installed name, or ``path/to/file.py:function``.
        options: the rule's own keyword arguments, checked against its signature.

    Raises:
        RuleError: unknown rule or option (names the nearest), missing option, an option of another type,
            a function that is no rule, unusable file.
    """
    reference, function = find_rule(name)
    return BoundRule(name, reference, function, options or {})
