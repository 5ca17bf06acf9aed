"""Reading of values in MEGA-Bench's answers: literals, lists, sets, mappings, numbers, boxes and points.

All texts are of models: their length, nesting and number of brackets are bounded.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_POINT, _BOX = re.compile(r"<point>(.*?)</point>"), re.compile(r"<box>(.*?)</box>")
_MAX_CHARS, _MAX_NESTING = 20_000, 60
_MAX_SPANS = 50
_CLOSING = {"{": "}", "[": "]"}
_BRACKETS = {**_CLOSING, "(": ")"}


def literal(value: Any) -> Any:
    """Return the value that a text writes as Python or JSON; the text itself if it writes none."""
    if not isinstance(value, str) or len(value) > _MAX_CHARS or _nesting(value) > _MAX_NESTING:
        return value
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(value.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return value


def _nesting(text: str) -> int:
    """Return the largest number of brackets that are open at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def structure(text: str) -> Any:
    """Return the last list or mapping that a text writes between matching brackets, None if there is none."""
    spans = sorted(_bracketed(text[-_MAX_CHARS:]), key=lambda span: (-span[1], span[0]))
    for start, end in spans[:_MAX_SPANS]:
        value = literal(text[-_MAX_CHARS:][start:end])
        if isinstance(value, (Mapping, list)):
            return value
    return None


def _bracketed(text: str) -> list[tuple[int, int]]:
    opened: list[int] = []
    spans = []
    for place, character in enumerate(text):
        if character in _CLOSING:
            opened.append(place)
        elif opened and character == _CLOSING[text[opened[-1]]]:
            spans.append((opened.pop(), place + 1))
    return spans


def as_number(value: Any) -> float:
    """Return a number that a value is or writes. Raises ``ValueError`` if it is none."""
    found = literal(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return float(found)


def as_list(value: Any) -> list[Any]:
    """Return a list that a value is or writes; a text without brackets is split at its commas."""
    found = literal(value)
    if isinstance(found, (list, tuple, set, frozenset)):
        return list(found)
    if not isinstance(found, str):
        return [found]
    text = found.strip(" ")
    if text[:1] in _BRACKETS:
        if not text.endswith(_BRACKETS[text[0]]):
            return []
        text = text[1:-1]
    return [one.strip() for one in text.split(",")] if text else []


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(one)) for key, one in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple, set)) else value


def as_set(value: Any) -> set[Any]:
    """Return the members of a list, as ``as_list`` reads it; those that are lists become tuples."""
    return {_frozen(one) for one in as_list(value)}


def lowered(value: Any) -> Any:
    """Return a text in lower case; of a sequence, its texts, also without spaces, stops and hyphens."""
    if isinstance(value, (list, tuple)):
        return tuple(re.sub(r"[\s_.\-]", "", str(one)).lower() for one in value)
    return value.lower() if isinstance(value, str) else value


def as_lower_set(value: Any) -> set[Any]:
    """Return the members of a list, each ``lowered``."""
    return {lowered(_frozen(one)) for one in as_list(value)}


def as_lines(value: Any) -> set[str]:
    """Return the lines of a text in lower case."""
    return {line.lower() for line in str(value).replace("\\n", "\n").split("\n")}


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping that a value is or writes. Raises ``ValueError`` if it is none or empty."""
    found = structure(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{value!r} is no mapping")
    return found


def as_boxes(value: Any) -> list[Sequence[float]]:
    """Return the boxes of a list of boxes, or the one box that a list of four numbers is."""
    found = literal(value)
    if len(found) == 4 and isinstance(found[0], (int, float)):
        found = [found]
    return [box for box in found if len(box) == 4 and all(isinstance(one, (int, float)) for one in box)]


def as_marked_boxes(value: Any) -> list[Sequence[float]]:
    """Return the boxes in ``<box>x1, y1, x2, y2</box>``."""
    boxes = [[float(part) for part in box.split(",")] for box in _BOX.findall(value)]
    return [box for box in boxes if len(box) == 4]


def as_point(value: Any) -> tuple[float, float]:
    """Return the point of a pair, or of the only ``<point>x, y</point>``. Raises ``ValueError``."""
    found = literal(value)
    if isinstance(found, str):
        (text,) = _POINT.findall(found)
        found = [float(part) for part in text.split(",")]
    x, y = found
    return float(x), float(y)
