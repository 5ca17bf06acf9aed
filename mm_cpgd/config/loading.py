"""From the short YAML that people write to a complete ``RunConfig``, and back to a file.

In the order in which they apply, each over the one before:

1. ``extends: other.yaml`` (relative to the file that says it): sections merge key by key, lists replace.
2. The file itself.
3. Command line overrides ``section.key=value``; the value is YAML, an index reaches into a list
   (``rewards.0.weight=2``).
4. ``algorithm.recipe: NAME`` fills in the algorithm keys that none of the above wrote; where no algorithm
   is written at all, the recipe is cpgd.

A component of the algorithm (``advantage``, ``surrogate``, ``aggregation``) merges only with one of the same
name: the numbers of one component mean nothing to another.

Relative paths of models and data are looked for beside the config file that wrote them, then in the current
directory; what exists in neither (a hub name, ``generated:clock``) stays as written. Paths given as overrides
are looked for in the current directory alone. Found paths become absolute, so that the saved config means the
same from everywhere.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mm_cpgd.config.messages import dotted, explain, section_at
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.config.yaml import dump_yaml, parse_yaml, read_yaml, shorten
from mm_cpgd.errors import UserError

DEFAULT_RECIPE = "cpgd"
_PACKAGE = Path(__file__).resolve().parents[1]
# Installed as mm_cpgd/configs; in a checkout the folder stands in the repository's root.
SHIPPED = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
_PATHS = (("policy", "model"), ("data", "train", "path"), ("data", "eval", "path"))
_COMPONENTS = tuple(("algorithm", part) for part in ("advantage", "surrogate", "aggregation"))
Location = tuple[int | str, ...]


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the complete config of a file, or of a shipped config named without a path (``quickstart``).

    Raises ``UserError`` that lists all mistakes together: where, what was written, what is allowed.
    """
    file = find_config(Path(path))
    data = _read_chain(file, ())
    changes = [_parse_override(text) for text in overrides]
    for location, value in changes:
        if _is_plain(location):
            data = _merge(data, _nested(location, value))
    data = _with_recipe(data)
    # Only now are the lists there that an index can point into: a recipe brings its own.
    for location, value in changes:
        if not _is_plain(location):
            _set_in_list(data, location, value)
    _resolve_paths(data, Path.cwd())
    return _validate(data, file)


def save_config(config: RunConfig, path: Path) -> None:
    """Write every value of ``config``, defaults too; ``load_config`` reads it back to an equal config."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_yaml(_plain(config.model_dump())), encoding="utf-8")


def _plain(value: Any) -> Any:
    # Not pydantic's JSON mode: it turns infinity into null.
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package, as ``load_config`` takes them."""
    return sorted(file.relative_to(SHIPPED).with_suffix("").as_posix() for file in SHIPPED.rglob("*.yaml"))


def find_config(path: Path) -> Path:
    """Return the file ``path`` means: itself, or the shipped config so named. Raises ``UserError``."""
    if path.is_file():
        return path
    shipped = SHIPPED / path if path.suffix == ".yaml" else SHIPPED / f"{path}.yaml"
    if not path.is_absolute() and ".." not in path.parts and shipped.is_file():
        return shipped
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a config file; name a .yaml file in it")
    names = shipped_configs()
    near = difflib.get_close_matches(path.name.removesuffix(".yaml"), names, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    raise UserError(
        f"config {path} does not exist, neither as a file nor among the shipped configs "
        f"({', '.join(names) or 'none are installed'}).{guess}"
    )


def _read_chain(file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file over the ones that it extends. ``chain`` is who led here, to notice a circle."""
    resolved = file.resolve()
    if resolved in chain:
        circle = " → ".join(part.name for part in (*chain[chain.index(resolved) :], resolved))
        raise UserError(f"{file}: 'extends' goes in a circle: {circle}; remove one of them")
    data = read_yaml(file)
    base = data.pop("extends", None)
    _resolve_paths(data, file.parent)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UserError(f"{file}: extends: {shorten(base)} is not allowed; should be one file name")
    parent = file.parent / Path(base).expanduser()
    if not parent.is_file():
        raise UserError(f"{file}: extends: {base}: there is no file {parent.resolve()}; check the path")
    return _merge(_read_chain(parent, (*chain, resolved)), data)


def _merge(base: Any, top: Any, location: Location = ()) -> Any:
    """Return ``top`` over ``base``: dicts merge deep, everything else replaces."""
    if not (isinstance(base, Mapping) and isinstance(top, Mapping)):
        return copy.deepcopy(top)
    if location in _COMPONENTS and top.get("name", base.get("name")) != base.get("name"):
        return copy.deepcopy(dict(top))
    merged = copy.deepcopy(dict(base))
    for key, value in top.items():
        merged[key] = _merge(merged.get(key), value, (*location, key))
    return merged


def _with_recipe(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``data`` with the recipe's keys under what was written in ``algorithm``."""
    algorithm = data.get("algorithm", {"recipe": DEFAULT_RECIPE})
    name = algorithm.get("recipe") if isinstance(algorithm, Mapping) else None
    if not isinstance(name, str):
        return data
    return _merge({"algorithm": {"recipe": name, **load_recipe(name)}}, data)


def _resolve_paths(data: Mapping[str, Any], folder: Path) -> None:
    """Make the model and data paths absolute that exist under ``folder``; in place."""
    for *parents, key in _PATHS:
        section: Any = data
        for part in parents:
            section = section.get(part) if isinstance(section, Mapping) else None
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, str) and value and (found := folder / Path(value).expanduser()).exists():
            section[key] = str(found.resolve())


def _parse_override(text: str) -> tuple[Location, Any]:
    """Split ``rewards.0.weight=2`` into ``("rewards", 0, "weight")`` and 2."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(
            f"override {text!r} is not of the form section.key=value, for instance training.iterations=50"
        )
    location = tuple(int(part) if part.isdecimal() else part for part in parts)
    return location, parse_yaml(value, f"override {text!r}")


def _is_plain(location: Location) -> bool:
    return not any(isinstance(part, int) for part in location)


def _nested(location: Location, value: Any) -> dict[Any, Any]:
    for part in reversed(location):
        value = {part: value}
    return value


def _set_in_list(data: Any, location: Location, value: Any) -> None:
    """Set one place of ``data`` behind a list index; in place."""
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(part, int) and isinstance(data, list):
            if part >= len(data):
                count = f"{len(data)} entries, counted from 0"
                raise UserError(f"override {dotted(location)}: {dotted(location[:depth])} has {count}")
        elif isinstance(part, str) and isinstance(data, dict):
            if data.get(part) is None and not last:
                data[part] = _default(location[: depth + 1])
        else:
            kind = "an index but no list is" if isinstance(part, int) else "a key but no section is"
            raise UserError(f"override {dotted(location)}: {part!r} is {kind} there: {shorten(data)}")
        if last:
            data[part] = value
        else:
            data = data[part]


def _default(location: Location) -> Any:
    """Return the schema's default of a list or section that the file does not write, as plain data."""
    *parents, key = location
    section = section_at(RunConfig, parents)
    field = section.model_fields.get(str(key)) if section else None
    default: Any = (
        None if field is None or field.is_required() else field.get_default(call_default_factory=True)
    )
    if isinstance(default, list):
        return [part.model_dump() if isinstance(part, BaseModel) else part for part in default]
    return {}


def _validate(data: dict[str, Any], file: Path) -> RunConfig:
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        lines = explain(error, RunConfig, data)
    count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    raise UserError(f"{file}: {count}:\n" + "\n".join(f"  {line}" for line in lines))
