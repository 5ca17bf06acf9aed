"""Columns and templates: a row's value by column, by path into nested columns, or by a Jinja template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data import DataError

# What tables write for nothing. "None" is also an option of questions, so only `given` reads it so.
_EMPTY, _NOTHING = ("", "nan"), ("", "nan", "none", "null", "n/a")
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, finalize=lambda value: "" if is_empty(value) else value
)
_ENVIRONMENT.filters["given"] = lambda value: "" if is_empty(value, _NOTHING) else value


@dataclass(frozen=True)
class Template:
    """Column, path or Jinja template, compiled at its first use.

    Attributes:
        text: as written in the declaration; columns may have alternatives, separated by "or".
    """

    text: str

    @property
    def is_column(self) -> bool:
        """Whether it is a column or path, not a template."""
        return "{{" not in self.text and "{%" not in self.text

    @property
    def names(self) -> list[str]:
        """The columns of which the first that a row fills counts: ``decoded_image or image``."""
        return [name.strip() for name in self.text.split(" or ")] if self.is_column else []

    def name_in(self, values: Mapping[str, Any]) -> str:
        """Return the first of the columns that is filled, else the first."""
        return next((name for name in self.names if not is_empty(value_at(values, name))), self.names[0])

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return _ENVIRONMENT.from_string(self.text)

    def value(self, values: Mapping[str, Any], where: str) -> Any:
        """Return the column's value (None if it is absent), or the rendered text.

        Raises:
            DataError: a template that uses an absent column, or fails; ``where`` begins the message.
        """
        return value_at(values, self.name_in(values)) if self.is_column else self.render(values, where)

    def render(self, values: Mapping[str, Any], where: str) -> str:
        """Return the text of the template. Raises ``DataError`` as ``value``."""
        try:
            return self._compiled.render({**values, "row": values})
        except jinja2.UndefinedError as error:
            there = ", ".join(map(str, values))
            raise DataError(
                f"{where}: {error} in the template {self.text[:80]!r}; there are {there}"
            ) from error
        except Exception as error:  # filters and operators raise what they like on values of other types
            raise DataError(
                f"{where}: the template {self.text[:80]!r} fails: {error or type(error).__name__}"
            ) from error


def compile_template(text: Any) -> Template:
    """Return the template of a text. Raises ``ValueError`` if its syntax is wrong or it is no text."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{text!r} is no column and no template")
    template = Template(text)
    if not template.is_column:
        try:
            _ENVIRONMENT.parse(text)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"the template {text[:80]!r} is broken: {error.message}") from error
    return template


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """Return the value of a column or of a path such as ``metadata.grade``; None if there is none."""
    if path in values:
        return values[path]
    found: Any = values
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def is_empty(value: Any, spelled: Sequence[str] = _EMPTY) -> bool:
    """Return whether a cell is empty: None, NaN, or a text that is ``spelled`` so, in any case."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, str) and value.strip().lower() in spelled
