"""YAML of config files: safe loading and dumping with the scalars of YAML 1.2.

PyYAML follows YAML 1.1, where ``1e-6`` is a string, ``no`` is false, ``010`` is eight and ``12:30`` is 750.
Here the core schema of YAML 1.2 applies (section 10.3.2 of its specification): ``1e-6`` is a number, only
``true`` and ``false`` are booleans, and dates stay strings. A duplicate key is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mm_cpgd.errors import UserError

_RESOLVERS = [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
]


class ConfigLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class-level registry)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dict. Raises ``ConstructorError`` for a duplicate key."""
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for index, (key, _) in enumerate(node.value):
            if key.value in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


class ConfigDumper(yaml.SafeDumper):
    """``yaml.SafeDumper`` that quotes what ``ConfigLoader`` would not read as a string."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value in full: anchors are hard to read in a config."""
        return True


for _tag, _pattern, _first in _RESOLVERS:
    for _class in (ConfigLoader, ConfigDumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in the file; an empty file is an empty mapping.

    Raises ``UserError`` for a missing or unreadable file, broken YAML (with its line), or another value.
    """
    value = load_yaml(path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold sections such as 'policy:' and 'data:', not {shorten(value)}")
    return value


def load_yaml(path: Path) -> Any:
    """Return the value in the file. Raises ``UserError`` if it is missing, unreadable or broken YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of ``text``. Raises ``UserError`` with ``where`` and the line if it is broken."""
    try:
        return yaml.load(text, ConfigLoader)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}{_line(error.problem_mark)}: broken YAML: {_problem(error)}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{where}: broken YAML: {' '.join(str(error).split())}") from None


def _line(mark: yaml.Mark | None) -> str:
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    # An unclosed quote or bracket is reported far behind its start; the context holds the line of the start.
    context = f" ({error.context}{_line(error.context_mark)})" if error.context else ""
    return f"{error.problem}{context}"


def dump_yaml(value: dict[str, Any]) -> str:
    """Return YAML that ``parse_yaml`` reads back to an equal value."""
    return yaml.dump(value, Dumper=ConfigDumper, sort_keys=False, allow_unicode=True, width=100)


def shorten(value: Any, length: int = 60) -> str:
    """Return ``repr(value)``, cut to ``length`` characters."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
