"""Error messages for invalid configs: pydantic's validation errors in terms of the YAML file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mm_cpgd.config.yaml import shorten
from rewards.messages import closest

Location = tuple[int | str, ...]


def explain(
    error: ValidationError,
    root: type[BaseModel],
    data: Mapping[str, Any],
    *,
    missing: str = "; write it in the config",
) -> list[str]:
    """Return one line per mistake: dotted key, value, and what is allowed.

    Args:
        error: as raised by ``root.model_validate(data)``.
        root: the schema, for the keys that a section allows.
        data: validated data, to distinguish keys from union branches in pydantic's locations.
        missing: what to do about a key that is missing, at the end of its line.
    """
    allowed: dict[Location, list[str]] = {}
    lines: dict[Location, str] = {}
    for detail in error.errors(include_url=False):
        location = _location(detail, data)
        if detail["type"] == "extra_forbidden":
            lines[location] = _unknown_key(root, location)
        elif detail["type"] == "missing":
            lines[location] = _missing_key(root, location) + missing
        else:
            # Each branch of a union reports its own error; the message joins them as alternatives.
            alternatives = allowed.setdefault(location, [])
            alternatives.append(detail["msg"].replace("Input should be ", "").replace("Value error, ", ""))
            value = shorten(detail["input"])
            if location in lines and len(alternatives) == 1:
                continue
            lines[location] = _bad_value(location, value, alternatives, detail["type"] == "value_error")
    return list(lines.values())


def section_at(root: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the schema class of the section at a location; None where there is none."""
    section: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if section else None
        section = _section_in(field.annotation) if field else None
    return section


def dotted(location: Sequence[int | str]) -> str:
    """Return ``rewards.0.weight`` for ``("rewards", 0, "weight")``."""
    return ".".join(str(part) for part in location)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)


def _location(detail: ErrorDetails, data: Any) -> Location:
    """Return the location without the names of union branches, which pydantic appends to the keys."""
    location: list[int | str] = []
    for part in detail["loc"]:
        in_section = isinstance(data, Mapping) and part in data
        in_list = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if in_section or in_list:
            data = data[part]
        elif detail["type"] == "missing" and isinstance(data, Mapping):
            return (*location, part)
        else:
            break
        location.append(part)
    return tuple(location)


def _bad_value(location: Location, value: str, alternatives: list[str], custom_message: bool) -> str:
    where = dotted(location)
    if custom_message:
        return f"{where}: {alternatives[-1]}" if where else alternatives[-1]
    return f"{where}: {value} is not allowed here; should be {' or '.join(dict.fromkeys(alternatives))}"


def _unknown_key(root: type[BaseModel], location: Location) -> str:
    *parents, key = location
    section = section_at(root, parents)
    keys = list(section.model_fields) if section else []
    place = dotted(parents) or "the top level"
    return (
        f"{dotted(location)}: unknown key{_did_you_mean(root, str(key), keys)} Allowed in {place}: "
        + ", ".join(keys)
    )


def _did_you_mean(root: type[BaseModel], key: str, keys: list[str]) -> str:
    near = closest(key, keys)
    if near:
        return f"; did you mean {near}?"
    for name, field in root.model_fields.items():
        section = _section_in(field.annotation)
        if section and key in section.model_fields:
            return f"; did you mean {name}.{key}?"
    return "."


def _missing_key(root: type[BaseModel], location: Location) -> str:
    *parents, key = location
    section = section_at(root, parents)
    field = section.model_fields.get(str(key)) if section else None
    hint = f" ({field.description})" if field and field.description else ""
    inner = _section_in(field.annotation) if field else None
    if inner:
        required = [name for name, part in inner.model_fields.items() if part.is_required()]
        hint = f" (a section with {', '.join(required)})" if required else ""
    return f"{dotted(location)}: missing{hint}"
