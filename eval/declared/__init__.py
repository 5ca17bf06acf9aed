"""Benchmarks that are declared in YAML: those of ``benchmarks/`` here, and users' own files by path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mm_cpgd.config.messages import explain
from mm_cpgd.config.yaml import load_yaml, read_yaml
from mm_cpgd.errors import UserError
from rewards.messages import nearest

if TYPE_CHECKING:
    from eval.declared.schema import Declaration, Subset

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
FOLDER = Path(__file__).parent / "benchmarks"
_HOW = "such as 'gauges: {title: …, data: {…}, …}'; docs/benchmarks.md has a complete one"
SUFFIXES = (".yaml", ".yml")


@lru_cache(maxsize=1)
def declared() -> Mapping[str, Declaration | Subset]:
    """Return the declarations of the included benchmarks by name."""
    return {name: one for file in sorted(FOLDER.glob("*.yaml")) for name, one in read(file).items()}


@lru_cache(maxsize=1)
def declared_names() -> list[str]:
    """Return the names of the included declared benchmarks, sorted; no declaration is checked."""
    return sorted(name for file in FOLDER.glob("*.yaml") for name in read_yaml(file))


def read(file: Path) -> dict[str, Declaration | Subset]:
    """Return the declarations of a file by name.

    Raises:
        UserError: no such file, broken YAML, or a declaration that is not valid; names the key and what is
            allowed.
    """
    from eval.declared.schema import Declaration, Subset

    if not file.is_file():
        raise UserError(f"{file} does not exist; mm-cpgd benchmarks lists the benchmarks that have a name")
    declarations = load_yaml(file)
    if declarations is not None and not isinstance(declarations, dict):
        raise UserError(f"{file} must hold declarations by name, {_HOW}")
    if not declarations:
        raise UserError(f"{file} declares nothing: {_HOW}")
    found: dict[str, Declaration | Subset] = {}
    for name, content in declarations.items():
        # Results are stored in a folder of this name.
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"{file}: {name!r} is no name of a benchmark: letters, digits, _ and -, a letter first"
            )
        if not isinstance(content, dict):
            raise UserError(
                f"{file}: {name} must hold a declaration, the first key of which is usually title"
            )
        schema = Subset if "subset_of" in content else Declaration
        found[name] = _validated(schema, content, f"{file}: {name}")
    return found


def _validated(schema: type[Declaration] | type[Subset], content: dict, where: str) -> Declaration | Subset:
    from pydantic import ValidationError

    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [f"{where}.{line}" for line in explain(error, schema, content, missing="")]
        raise UserError("\n".join(lines)) from None


def find_declared(reference: str) -> tuple[str, Declaration | Subset]:
    """Return name and declaration of ``path/to/file.yaml``, or of one of several in it: ``file.yaml:name``.

    Raises:
        UserError: as ``read``, or the file has several declarations and none is named.
    """
    path, wanted = _split(reference)
    found = read(Path(path).expanduser())
    if wanted:
        if wanted not in found:
            raise UserError(f"{path} declares no {wanted!r}: {nearest(wanted, found)}")
        return wanted, found[wanted]
    if len(found) != 1:
        raise UserError(f"{path} declares {', '.join(found)}; name one of them: {path}:NAME")
    return next(iter(found.items()))


def _split(reference: str) -> tuple[str, str]:
    """Return path and name of ``file.yaml:name``."""
    for suffix in SUFFIXES:
        path, mark, name = reference.rpartition(f"{suffix}:")
        if mark:
            return path + suffix, name
    return reference, ""


def is_declared(reference: str) -> bool:
    """Return whether a reference is that of a YAML file."""
    return _split(reference)[0].endswith(SUFFIXES)
