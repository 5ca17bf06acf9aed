"""Published benchmarks and their lookup: one Python file each here, the others declared in YAML; users' own.

``eval.declared`` has the declarations.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eval.benchmark import Benchmark
from eval.declared import declared, declared_names, find_declared, is_declared
from mm_cpgd.errors import UserError
from rewards.messages import nearest
from rewards.registry import user_module

if TYPE_CHECKING:
    from eval.declared.schema import Declaration, Subset

_HOW = (
    "a benchmark is a name (mm-cpgd benchmarks lists them), path/to/file.py that defines "
    "benchmark = Benchmark(…), or path/to/file.yaml that declares one"
)


def benchmark_names() -> list[str]:
    """Return the names of the included benchmarks, sorted."""
    return sorted({*python_names(), *declared_names()})


def python_names() -> list[str]:
    """Return the names of the benchmarks with a Python file, sorted."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def find_benchmark(name_or_path: str) -> Benchmark:
    """Return a benchmark by name, in any spelling (``We-Math``), or from a user's file.

    Raises:
        UserError: unknown name (with the nearest one), or a file that cannot be used.
    """
    if is_declared(name_or_path):
        return _built(*find_declared(name_or_path))
    if name_or_path.endswith(".py") or "/" in name_or_path:
        return _benchmark_of(_module_at(name_or_path), name_or_path)
    # First those whose declarations need not be read.
    if (own := _named(name_or_path, python_names())) is not None:
        return _benchmark_of(importlib.import_module(f"{__name__}.{own}"), own)
    if (name := _named(name_or_path, declared_names())) is not None:
        return _included(name)
    near = nearest(name_or_path.lower(), benchmark_names())
    raise UserError(f"there is no benchmark {name_or_path!r}: {near}; {_HOW}")


def _named(spelling: str, names: Iterable[str]) -> str | None:
    return next((name for name in names if _plain(name) == _plain(spelling)), None)


def benchmark_of(summary: Mapping[str, Any]) -> Benchmark | None:
    """Return the benchmark of a result, from its ``summary.json``.

    None if a user's Python file defines it, which is not executed here, or if its file is not there any more.
    """
    reference = str(summary.get("settings", {}).get("benchmark") or summary["benchmark"])
    if reference.endswith(".py"):
        return None
    try:
        return find_benchmark(reference)
    except UserError:
        return None


@cache
def _included(name: str) -> Benchmark:
    return _built(name, declared()[name])


def _built(name: str, one: Declaration | Subset) -> Benchmark:
    from eval.declared.build import build, build_subset
    from eval.declared.schema import Subset

    if isinstance(one, Subset):
        return build_subset(name, one, find_benchmark(one.subset_of))
    return build(name, one)


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
