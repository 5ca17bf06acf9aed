"""Published benchmarks, one file each, and their lookup: by name, or a user's own file by path."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

from eval.benchmark import Benchmark
from mm_cpgd.errors import UserError
from rewards.messages import nearest
from rewards.registry import user_module

_HOW = "a benchmark is a name or path/to/file.py that defines benchmark = Benchmark(…)"


def benchmark_names() -> list[str]:
    """Return the names of the included benchmarks, sorted."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def find_benchmark(name_or_path: str) -> Benchmark:
    """Return a benchmark by name, in any spelling (``We-Math``), or from a user's file.

    Raises:
        UserError: unknown name (with the nearest one), or a file that cannot be used.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        return _benchmark_of(_module_at(name_or_path), name_or_path)
    known = {_plain(name): name for name in benchmark_names()}
    name = known.get(_plain(name_or_path))
    if name is None:
        raise UserError(
            f"there is no benchmark {name_or_path!r}: {nearest(name_or_path.lower(), known.values())}; {_HOW}"
        )
    return _benchmark_of(importlib.import_module(f"{__name__}.{name}"), name)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _module_at(reference: str) -> ModuleType:
    path = Path(reference).expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"there is no Python file {path} (benchmark {reference!r}); {_HOW}")
    return user_module(path, UserError, _HOW)


def _benchmark_of(module: ModuleType, reference: str) -> Benchmark:
    found = getattr(module, "benchmark", None)
    if not isinstance(found, Benchmark):
        what = "defines no `benchmark`" if found is None else f"has a {type(found).__name__} as `benchmark`"
        raise UserError(f"{reference} {what}; {_HOW}")
    return found
