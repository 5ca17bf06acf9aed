"""Loader of configs: from a short YAML file to a complete ``RunConfig``, and back to a file.

Sources, each overriding the previous one:

1. ``extends: other.yaml`` (relative to the file that contains it, else a shipped config): sections merge key
   by key, lists replace.
2. The file itself.
3. Command line overrides ``section.key=value``; the value is YAML, an index selects a list entry
   (``rewards.0.weight=2``).
4. ``algorithm.recipe: NAME`` fills in the algorithm keys that none of the above sets; where no algorithm is
   given at all, the recipe is cpgd.

A part of the algorithm (``advantage``, ``surrogate``, ``aggregation``, ``demonstrations``) merges only with a
part of the same name: the options of one part have no meaning for another.

Relative paths of models, data, rules and environments are resolved against the folder of the config file that
contains them, then the current directory; names that exist in neither (a hub name, ``generated:clock``) are
kept. Paths in overrides are resolved against the current directory only. Resolved paths become absolute, so
that the saved config is independent of the directory.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mm_cpgd.config.messages import dotted, explain, section_at
from mm_cpgd.config.recipes import load_recipe, recipe_names
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.config.yaml import dump_yaml, parse_yaml, read_yaml, shorten
from mm_cpgd.errors import UserError
from rewards.messages import closest

DEFAULT_RECIPE = "cpgd"
_PACKAGE = Path(__file__).resolve().parents[1]
# Installed as mm_cpgd/configs; in a checkout the folder is in the repository root.
SHIPPED = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
_PATHS = (("policy", "model"), ("data", "train", "path"), ("data", "eval", "path"))
_SINGLE = (
    "advantage",
    "surrogate",
    "aggregation",
    "prompts",
    "budget",
    "demonstrations",
    "reward_weights",
)
_SINGLE_PARTS = (
    *(("algorithm", kind) for kind in _SINGLE),
    ("sft", "surrogate"),
)
Location = tuple[int | str, ...]


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the complete config of a file, or of a shipped config named without a path (``quickstart``).

    Raises:
        UserError: lists all mistakes with their key, the value and what is allowed.
    """
    file = find_config(Path(path))
    data = _read_chain(file, ())
    changes = [_parse_override(text) for text in overrides]
    for location, value in changes:
        if _has_no_index(location):
            data = _merge(data, _nested(location, value))
    data = _with_recipe(data)
    # Indices apply only now, because a recipe adds lists of its own.
    for location, value in changes:
        if not _has_no_index(location):
            _set_in_list(data, location, value)
    _resolve_paths(data, Path.cwd())
    return _validate(data, file)


def save_config(config: RunConfig, path: Path, history: Sequence[str] = ()) -> None:
    """Write every value of ``config``, defaults included; ``load_config`` reads back an equal config.

    Args:
        config: the complete config.
        path: the file; its folder is created.
        history: lines that stand as comments before the values.

    Raises:
        UserError: the file cannot be written.
    """
    comments = "".join(f"# {' '.join(line.split())}\n" for line in history)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A full disk leaves no half of it, which would be taken for a run.
        temporary.write_text(comments + dump_yaml(_as_plain_data(config.model_dump())), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free space or fix the cause"
        ) from error


def _as_plain_data(value: Any) -> Any:
    # Not pydantic's JSON mode, which turns infinity into null.
    if isinstance(value, Mapping):
        return {key: _as_plain_data(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_plain_data(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def shipped_configs() -> list[str]:
    """Return the names of the configs in the package, as accepted by ``load_config``."""
    return sorted(file.relative_to(SHIPPED).with_suffix("").as_posix() for file in SHIPPED.rglob("*.yaml"))


def find_config(path: Path) -> Path:
    """Return the file itself, or the shipped config of this name. Raises ``UserError``."""
    if path.is_file():
        return path
    if shipped := _shipped(path):
        return shipped
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a config file; name a .yaml file in it")
    if recipe := _former_recipe(path):
        name = f"quickstart_{recipe}"
        raise UserError(f"config {name} was removed; use: quickstart algorithm.recipe={recipe} name={name}")
    names = shipped_configs()
    near = closest(path.name.removesuffix(".yaml"), names)
    hint = f" Did you mean {near}?" if near else ""
    raise UserError(
        f"config {path} does not exist, neither as a file nor among the shipped configs "
        f"({', '.join(names) or 'none are installed'}).{hint}"
    )


def _shipped(path: Path) -> Path | None:
    """Return the shipped config of this name, with or without its ending."""
    file = SHIPPED / path if path.suffix == ".yaml" else SHIPPED / f"{path}.yaml"
    return file if not path.is_absolute() and ".." not in path.parts and file.is_file() else None


def _former_recipe(path: Path) -> str | None:
    """Return the recipe of ``quickstart_RECIPE``, a shipped config of earlier versions; None for others."""
    name = path.name.removesuffix(".yaml")
    recipe = name.removeprefix("quickstart_")
    is_former = path.parent.name in ("", "configs") and name != recipe and recipe in recipe_names()
    return recipe if is_former else None


def _read_chain(file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file merged over those that it extends; ``chain`` holds the extending files (cycle check)."""
    resolved = file.resolve()
    if resolved in chain:
        cycle = " → ".join(link.name for link in (*chain[chain.index(resolved) :], resolved))
        raise UserError(f"{file}: 'extends' forms a cycle: {cycle}; remove one of them")
    data = read_yaml(file)
    base = data.pop("extends", None)
    _resolve_paths(data, file.parent)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UserError(f"{file}: extends: {shorten(base)} is not allowed; should be one file name")
    parent = file.parent / Path(base).expanduser()
    if not parent.is_file() and (shipped := _shipped(Path(base))):
        parent = shipped
    if not parent.is_file():
        if recipe := _former_recipe(Path(base)):
            raise UserError(
                f"{file}: extends: {base} was removed; extend quickstart.yaml and write algorithm: "
                f"{{recipe: {recipe}}}"
            )
        raise UserError(
            f"{file}: extends: {base}: there is no file {parent.resolve()}, and no shipped config of this "
            f"name ({', '.join(shipped_configs())}); check the path"
        )
    return _merge(_read_chain(parent, (*chain, resolved)), data)


def _merge(base: Any, top: Any, location: Location = ()) -> Any:
    """Return ``top`` merged over ``base``: mappings merge recursively, other values replace."""
    if not (isinstance(base, Mapping) and isinstance(top, Mapping)):
        return copy.deepcopy(top)
    if location in _SINGLE_PARTS and top.get("name", base.get("name")) != base.get("name"):
        return copy.deepcopy(dict(top))
    merged = copy.deepcopy(dict(base))
    for key, value in top.items():
        merged[key] = _merge(merged.get(key), value, (*location, key))
    return merged


def _with_recipe(data: dict[str, Any]) -> dict[str, Any]:
    """Return ``data`` with the recipe's values for the keys that ``algorithm`` does not set."""
    algorithm = data.get("algorithm", {"recipe": DEFAULT_RECIPE})
    name = algorithm.get("recipe") if isinstance(algorithm, Mapping) else None
    if not isinstance(name, str):
        return data
    return _merge({"algorithm": {"recipe": name, **load_recipe(name)}}, data)


def _resolve_paths(data: Mapping[str, Any], folder: Path) -> None:
    """Make paths of models, data, rules and environments that exist in ``folder`` absolute, in place."""
    for *parents, key in _PATHS:
        section: Any = data
        for name in parents:
            section = section.get(name) if isinstance(section, Mapping) else None
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, str) and value and (found := folder / Path(value).expanduser()).exists():
            section[key] = str(found.resolve())
    environment = _mapping(_mapping(data.get("rollout")).get("environment"))
    options = _mapping(environment.get("options"))
    rules = data.get("rewards")
    named = [(environment, "name"), (options, "environment"), (options, "tools")]
    named += [(_mapping(rule), "rule") for rule in (rules if isinstance(rules, list) else ())]
    for section, key in named:
        if key in section:
            section[key] = _resolved(section[key], folder)


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _resolved(reference: Any, folder: Path) -> Any:
    """Return ``path/to/file.py:name``, or a list of such, absolute where the file exists in ``folder``."""
    if isinstance(reference, list):
        return [_resolved(one, folder) for one in reference]
    if not isinstance(reference, str) or ".py:" not in reference:
        return reference
    file, _, name = reference.rpartition(":")
    found = folder / Path(file).expanduser()
    return f"{found.resolve()}:{name}" if found.is_file() else reference


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


def _has_no_index(location: Location) -> bool:
    return not any(isinstance(part, int) for part in location)


def _nested(location: Location, value: Any) -> dict[Any, Any]:
    for part in reversed(location):
        value = {part: value}
    return value


def _set_in_list(data: Any, location: Location, value: Any) -> None:
    """Set the value at a location that contains a list index; in place."""
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
    """Return the schema's default of a list or section that the file does not set, as plain data."""
    *parents, key = location
    section = section_at(RunConfig, parents)
    field = section.model_fields.get(str(key)) if section else None
    default: Any = (
        None if field is None or field.is_required() else field.get_default(call_default_factory=True)
    )
    if isinstance(default, list):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in default]
    return {}


def _validate(data: dict[str, Any], file: Path) -> RunConfig:
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        lines = explain(error, RunConfig, data)
    else:
        _check_name(config, file)
        return config
    count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    raise UserError(f"{file}: {count}:\n" + "\n".join(f"  {line}" for line in lines))


def _check_name(config: RunConfig, file: Path) -> None:
    """Check that a run whose folder follows from its name stays in ``runs/``."""
    name = Path(config.name)
    if config.output is None and (name.is_absolute() or ".." in name.parts):
        raise UserError(
            f"{file}: name: {shorten(config.name)} would put the run outside of runs/; choose a name without "
            "'..' and without a '/' at its start, or set output to the folder that is meant"
        )
