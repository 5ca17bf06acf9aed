"""Registry of environments: built in, installed, or a class or function in a user's file; options checked.

An environment is named as reward rules are: ``tools``, the name of an entry point, ``path/to/file.py:name``.
What the name stands for is called as ``name(seed, **options)`` and returns an environment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mm_cpgd.environments.checks import CheckedEnvironment
from mm_cpgd.environments.options import checked_options
from mm_cpgd.environments.protocol import PlainEnvironment
from mm_cpgd.errors import UserError
from rewards.messages import nearest
from rewards.registry import user_module

# Entry points: [project.entry-points."mm_cpgd.environments"] search = "package:factory".
GROUP = "mm_cpgd.environments"


def find_named(kind: str, name: str, known: Mapping[str, Any], group: str | None = None) -> tuple[str, Any]:
    """Return a reference independent of the working directory, and the object that the name stands for.

    Args:
        kind: what it is, for messages: "environment", "tool", "score".
        name: a known name, an entry point's name, or ``path/to/file.py:name``.
        known: built-in objects by name.
        group: group of entry points.

    Raises:
        UserError: unknown (the nearest is named), or a file or package that cannot be loaded.
    """
    if ".py:" in name:
        return _in_file(kind, name)
    if name in known:
        return name, known[name]
    installed = {entry.name: entry for entry in entry_points(group=group)} if group else {}
    if name in installed:
        try:
            return name, installed[name].load()
        except Exception as error:
            raise UserError(
                f"{kind} {name!r} is installed as {installed[name].value} and cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
    if name.endswith(".py"):
        raise UserError(f"{name} is a file; name one {kind} in it: {name}:name")
    raise UserError(f"there is no {kind} {name!r}: {nearest(name, [*known, *installed])}")


def _in_file(kind: str, reference: str) -> tuple[str, Any]:
    file, _, name = reference.rpartition(":")
    path = Path(file).expanduser().resolve()
    how = f"the {kind} is named path/to/file.py:name"
    if not path.is_file():
        raise UserError(f"there is no file {path} ({kind} {reference!r}); {how}")
    module = user_module(path, UserError, how)
    if not hasattr(module, name):
        defined = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(
            f"{path} has no {name!r}: {nearest(name, defined) if defined else 'it defines nothing callable'}"
        )
    return f"{path}:{name}", getattr(module, name)


class BoundEnvironment:
    """Factory of environments with its options: ``factory(seed) -> Environment``. Pickled by reference.

    Attributes:
        name: the name as given.
        reference: the name, independent of the working directory.
        options: checked, each of its parameter's type.
    """

    def __init__(
        self, name: str, reference: str, function: Callable[..., Any], options: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.reference = reference
        self._function = function
        seed = _seed_parameter(name, function)
        self.options = checked_options(f"environment {name!r}", function, options, skip=(seed,))

    def has_option(self, name: str) -> bool:
        """Return whether the environment has a parameter of this name."""
        return name in inspect.signature(self._function).parameters

    def with_options(self, options: Mapping[str, Any]) -> BoundEnvironment:
        """Return a factory of the same environment with further options, which are checked."""
        return BoundEnvironment(self.name, self.reference, self._function, {**self.options, **options})

    def __call__(self, seed: int) -> CheckedEnvironment:
        """Return a new environment, whose messages and observations are checked.

        Raises:
            UserError: what the function returns has no ``reset`` or ``step``.
        """
        return CheckedEnvironment(self.name, self._function(seed, **self.options))

    def __reduce__(self) -> tuple[Callable[..., BoundEnvironment], tuple[str, dict[str, Any]]]:
        """Return the call that finds the environment again in another process."""
        return get_environment, (self.reference, self.options)


def _seed_parameter(name: str, function: Any) -> str:
    """Return the name of the first parameter of a factory, which takes the seed."""
    if not callable(function):
        raise UserError(
            f"environment {name!r} is {type(function).__name__}; write a class or def make(seed, …)"
        )
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or first.kind not in positional:
        raise UserError(
            f"environment {name!r} must take a seed first: def make(seed, …), or a class's __init__"
        )
    return first.name


def builtin() -> dict[str, Callable[..., Any]]:
    """Return the environments that come with the project, by name."""
    from mm_cpgd.environments.adapters.from_trl import TrlEnvironment
    from mm_cpgd.environments.adapters.from_verifiers import VerifiersEnvironment
    from mm_cpgd.environments.conversation import ToolEnvironment

    return {
        "plain": PlainEnvironment,
        "tools": ToolEnvironment,
        "trl": TrlEnvironment,
        "verifiers": VerifiersEnvironment,
    }


def list_environments() -> dict[str, str]:
    """Return the names of all built-in and installed environments, each with its docstring's first line."""
    found = {name: (inspect.getdoc(one) or "").partition("\n")[0] for name, one in builtin().items()}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, f"installed: {entry.value}")
    return dict(sorted(found.items()))


def get_environment(name: str, options: Mapping[str, Any] | None = None) -> BoundEnvironment:
    """Return the factory of an environment, and make one as a test.

    Args:
        name: "plain", "tools", an entry point's name, or ``path/to/file.py:name``.
        options: keyword arguments, checked against the signature.

    Raises:
        UserError: unknown environment or option (the nearest is named), an option of the wrong type, or what
            the function raises when it makes an environment.
    """
    reference, function = find_named("environment", name, builtin(), GROUP)
    factory = BoundEnvironment(name, reference, function, options or {})
    try:
        factory(0)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"environment {name!r} cannot be made: {type(error).__name__}: {error}; fix it or its options"
        ) from error
    return factory
