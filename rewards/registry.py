"""Registry of reward rules: built-in, installed, or a function in a user's file; options checked and bound.

A rule is a plain function ``f(completion, example, **options) -> Verdict | float`` under ``@rule("name")``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import numbers
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar, cast, overload

from rewards.messages import nearest
from rewards.rule_files import missing_function
from rewards.verdict import RuleError, Status, Verdict


def user_module(path: Path, failure: type[Exception], how: str) -> ModuleType:
    """Import a file once per process, as an ordinary import would.

    Args:
        path: resolved path of an existing file.
        failure: type of the exception to raise.
        how: how such a file is named, for its message.

    Raises:
        failure: the file is not a Python file, or importing it raises.
    """
    try:
        return _module_at(path)
    except _NotPython:
        raise failure(f"{path} is not a Python file; {how}") from None
    except (Exception, SystemExit) as error:
        raise failure(f"{path} cannot be imported: {type(error).__name__}: {error}; fix the file") from error


class _NotPython(Exception):
    """Python has no loader for the file."""


@lru_cache(maxsize=64)
def _module_at(path: Path) -> ModuleType:
    digest = hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise _NotPython
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, pickle and type hints look up their module in sys.modules.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


Rule = Callable[..., Any]
Decorated = TypeVar("Decorated", bound=Rule)
# The modules of the built-in rules; imported when a rule is first looked up.
_BUILTIN = tuple(
    f"rewards.rules.{module}"
    for module in (
        "accuracy",
        "format",
        "grounding",
        "language",
        "length",
        "numeric",
        "pointing",
        "program_output",
        "text",
        "video",
    )
)
# Entry points of installed packages: [project.entry-points."mm_cpgd.rewards"] brevity = "package:function".
GROUP = "mm_cpgd.rewards"
_ALLOWED = "a finite number, or a Verdict (a score of None excludes the completion)"
_SHAPE = "def rule(completion, example, …)"
_HOW = "a rule is named path/to/file.py:function"
_rules: dict[str, Rule] = {}


def options_of(function: Rule) -> dict[str, inspect.Parameter]:
    """Return the options of a rule: its named parameters after completion and example."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in named}


def _check_signature(name: str, function: Rule) -> inspect.Signature:
    """Return the signature of a function that takes a completion and an example."""
    if not callable(function):
        raise RuleError(f"rule {name!r} is {type(function).__name__}, not a function; write {_SHAPE}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise RuleError(f"rule {name!r} is asynchronous or a generator; write a plain {_SHAPE}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise RuleError(f"the signature of rule {name!r} cannot be read; wrap it: {_SHAPE}") from error
    _check_other_trainers(name, list(signature.parameters))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = [parameter.kind for parameter in signature.parameters.values()][:2]
    if len(first) < 2 or any(kind not in positional for kind in first):
        raise RuleError(f"rule {name!r} must take a completion and an example: {_SHAPE}")
    if signature.return_annotation in (str, "str", None, "None"):
        raise RuleError(
            f"rule {name!r} is annotated to return {signature.return_annotation}; allowed: {_ALLOWED}"
        )
    return signature


# Parameters by which functions of other trainers can be told, and what such a function scores.
_OTHER_TRAINERS = {
    "completions": "TRL's signature, which scores lists of completions",
    "solution_str": "verl's signature (compute_score)",
    "reward_inputs": "EasyR1's signature, which scores lists",
}


def _check_other_trainers(name: str, parameters: Sequence[str]) -> None:
    for parameter, what in _OTHER_TRAINERS.items():
        if parameter in parameters:
            raise RuleError(
                f"rule {name!r} has {what}; write {_SHAPE} that calls it for one completion and returns its "
                "number (example.answer is the gold answer, example.meta holds the row's other columns)"
            )


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
    """Return the parameter's type; ``Any`` if it has none, or none that can be resolved at run time."""
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
    """Return the value converted to its parameter's type: ``1e-3``, which YAML reads as text, to a number."""
    if hint is Any:
        return value
    # Slow to import, and not needed for rules without options.
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        kind = getattr(hint, "__name__", str(hint))
        raise RuleError(
            f"option {option!r} of rule {name!r} is {value!r}, it must be {kind}: {error.errors()[0]['msg']}"
        ) from error
    except PydanticUserError:  # a class of the user, which pydantic cannot check
        return value


def checked_options(name: str, function: Rule, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, each converted to its parameter's type.

    Raises:
        RuleError: the function is no rule; an option is unknown, missing or of the wrong type.
    """
    signature = _check_signature(name, function)
    _check_names(name, function, signature, options)
    accepted = options_of(function)
    return {
        option: _typed(name, option, value, _hint(function, accepted[option]))
        if option in accepted
        else value
        for option, value in options.items()
    }


def _finite(value: Any) -> float | None:
    """Return a number as a float: Python's, or a scalar of NumPy or torch; None for anything else."""
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        value = value.item()  # numpy.bool_, an array or a tensor without axes
    if not isinstance(value, (numbers.Real, Decimal)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # 10**400, a signalling NaN
        return None
    return number if math.isfinite(number) else None


def as_verdict(name: str, result: Any) -> Verdict:
    """Return a rule's result as a verdict: 1 is correct, 0 wrong, values between are partial.

    Raises:
        RuleError: the result is neither a finite number nor a verdict with a finite score or None.
    """
    score = result.score if isinstance(result, Verdict) else result
    value = _finite(score)
    if isinstance(result, Verdict) and (score is None or value is not None):
        return result if type(score) in (float, type(None)) else replace(result, score=value)
    if value is None:
        got = f"{_shown(result)} ({type(result).__name__})"
        hint = "; a return statement may be missing" if result is None else ""
        raise RuleError(f"rule {name!r} returned {got}{hint}; allowed: {_ALLOWED}")
    status = Status.CORRECT if value >= 1 else Status.WRONG if value <= 0 else Status.PARTIAL
    return Verdict(value, status, None, f"{name} returned {value:g}")


def _shown(result: Any) -> str:
    try:
        return repr(result)[:120]
    except Exception:  # the repr of a user's class
        return "an object"


class BoundRule:
    """Rule with its options: ``rule(completion, example) -> Verdict``. Pickled by reference and options.

    Attributes:
        name: the name as given.
        reference: the name, independent of the working directory.
        options: checked, each of its parameter's type.
    """

    def __init__(self, name: str, reference: str, function: Rule, options: Mapping[str, Any]) -> None:
        self.name = name
        self.reference = reference
        self.options = checked_options(name, function, options)
        self._function = function

    @property
    def is_users(self) -> bool:
        """Whether it is in a file or an installed package, where another process can find it."""
        return ".py:" in self.reference or self.reference not in _rules

    def __call__(self, completion: str, example: Any) -> Verdict:
        """Score one completion. Raises what the rule raises, and ``RuleError`` for an invalid result."""
        return as_verdict(self.name, self._function(completion, example, **self.options))

    def __reduce__(self) -> tuple[Callable[..., BoundRule], tuple[str, dict[str, Any]]]:
        """Return the call that finds the rule again in another process."""
        return get_rule, (self.reference, self.options)


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
    """Return the entry points of installed packages by name; several packages may use one name."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _load_installed(name: str, entries: list[EntryPoint]) -> Rule:
    if len({entry.value for entry in entries}) > 1:
        offers = " and ".join(entry.value for entry in entries)
        raise RuleError(
            f"rule {name!r} is provided by {offers}; uninstall one, or name a function by its file"
        )
    try:
        return cast(Rule, entries[0].load())
    except Exception as error:
        raise RuleError(
            f"rule {name!r} is installed as {entries[0].value} and cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error


def list_rules() -> dict[str, str]:
    """Return the names of all registered and installed rules, each with the first line of its docstring."""
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
    """Return the reference and function of ``path/to/file.py:name``, a function's or an ``@rule``'s name."""
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
    """Return the rule's reference, which is independent of the working directory, and its function.

    Raises:
        RuleError: unknown rule (names the nearest), or a file or installed package that cannot be loaded.
    """
    if name.endswith((".py", ".py:")):
        raise missing_function(name)
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
        RuleError: unknown rule or option (names the nearest), missing option, an option of the wrong type,
            a function that is no rule, a file that cannot be loaded.
    """
    reference, function = find_rule(name)
    return BoundRule(name, reference, function, options or {})
