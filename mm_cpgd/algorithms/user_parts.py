"""A user's own part: a function in a file of theirs, named ``path/to/file.py:function`` as rewards are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mm_cpgd.errors import UserError
from rewards.user_files import user_module

_HOW = "a part of your own is named path/to/file.py:function"


def is_in_file(name: str) -> bool:
    """Whether a part's name means a function in a file."""
    return ".py:" in name


def function_in_file(where: str, reference: str) -> Callable[..., Any]:
    """Return the function that ``path/to/file.py:function`` means; the file is run, as any import would.

    Args:
        where: the place in the config, for messages.
        reference: path, relative to the working directory, and name.

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
        near = get_close_matches(name, functions, n=1, cutoff=0.0)
        advice = f"the nearest is {near[0]!r}" if near else "it defines none"
        raise UserError(f"{where}: {path} has no function {name!r}: {advice}")
    return functions[name]
