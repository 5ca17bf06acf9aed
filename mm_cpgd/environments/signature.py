"""Signatures of tools: typed parameters as a JSON schema, described by the lines of a docstring."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from data.example import ImageRef
from mm_cpgd.errors import UserError

# Parameters of these names get their value from the environment, and the model does not see them.
HIDDEN = ("example", "images", "view", "rng")
_ALLOWED = "str, int, float, bool, Literal, list, dict, or an image (PIL.Image.Image or data.ImageRef)"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class Parameter:
    """A parameter that the model sees.

    Attributes:
        name: as in the signature.
        hint: the annotation; ``Image.Image`` and ``ImageRef`` are numbers of images for the model.
        default: ``inspect.Parameter.empty`` if there is none.
        description: its line in the docstring.
    """

    name: str
    hint: Any
    default: Any
    description: str

    @property
    def is_image(self) -> bool:
        """Whether the model gives the number of an image."""
        return self.hint in (Image.Image, ImageRef)

    @property
    def is_required(self) -> bool:
        """Whether the model must give it; an image is otherwise the first one."""
        return self.default is inspect.Parameter.empty and not self.is_image

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Validator of values from JSON."""
        return TypeAdapter(int if self.is_image else self.hint)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the values."""
        schema = {key: value for key, value in self.adapter.json_schema().items() if key != "title"}
        if self.is_image:
            schema.update(minimum=1, default=1)
        elif self.default not in (inspect.Parameter.empty, None):
            schema["default"] = self.default
        text = self.description or ("number of the image, counted from 1" if self.is_image else "")
        return {**schema, "description": text} if text else schema


@dataclass(frozen=True)
class Signature:
    """What the model is told about a function.

    Attributes:
        description: the docstring before its sections.
        parameters: those that the model sees, in order.
        hidden: names from ``HIDDEN`` that the function takes.
    """

    description: str
    parameters: tuple[Parameter, ...]
    hidden: tuple[str, ...]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return {
            "type": "object",
            "properties": {one.name: one.schema for one in self.parameters},
            "required": [one.name for one in self.parameters if one.is_required],
        }


def read_signature(name: str, function: Callable[..., Any]) -> Signature:
    """Return the signature of a tool.

    Raises:
        UserError: no docstring, a parameter without a type, of a type that JSON cannot give, or ``*args``.
    """
    where = f"tool {name!r}"
    if not _NAME.fullmatch(name):
        raise UserError(f"{where}: the name must be an identifier of at most 64 letters, digits and _")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise UserError(f"{where} is asynchronous or a generator; write a plain function")
    description, lines = read_docstring(inspect.getdoc(function) or "")
    if not description:
        raise UserError(f"{where} has no docstring, which is its description for the model; write one")
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: the types of its parameters cannot be read: {error}") from error
    hidden = tuple(key for key in signature.parameters if key in HIDDEN)
    visible = [one for key, one in signature.parameters.items() if key not in HIDDEN]
    return Signature(description, tuple(_parameter(where, one, hints, lines) for one in visible), hidden)


def _parameter(
    where: str, parameter: inspect.Parameter, hints: dict[str, Any], lines: dict[str, str]
) -> Parameter:
    name = parameter.name
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise UserError(f"{where}: {name!r} cannot be given by name; write plain parameters")
    if name not in hints:
        raise UserError(f"{where}: parameter {name!r} has no type; allowed: {_ALLOWED}")
    found = Parameter(name, hints[name], parameter.default, lines.get(name, ""))
    try:
        schema = found.schema
    except (PydanticUserError, TypeError, ValueError) as error:
        raise UserError(f"{where}: parameter {name!r} is {hints[name]}; allowed: {_ALLOWED}") from error
    if "$defs" in schema:
        raise UserError(f"{where}: parameter {name!r} is {hints[name]}; allowed: {_ALLOWED}")
    return found


_SECTION = re.compile(r"(Args|Arguments|Returns?|Raises|Yields|Examples?|Notes?|Source):\s*")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the description before the first section, and the lines of ``Args:`` by name (Google style)."""
    description: list[str] = []
    arguments: dict[str, str] = {}
    section = name = ""
    for line in text.splitlines():
        if match := _SECTION.fullmatch(line):
            section, name = match[1], ""
        elif not section:
            description.append(line.strip())
        elif section in ("Args", "Arguments") and line.strip():
            match = re.match(r"(?: {2}| {4})\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)", line)
            if match:
                name = match[1]
                arguments[name] = match[2].strip()
            elif name:
                arguments[name] += " " + line.strip()
    return re.sub(r"\s+", " ", " ".join(description)).strip(), arguments
