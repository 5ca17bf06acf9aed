"""Import of a user's Python file by path: a rule, a part of an objective, or a benchmark."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType


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
