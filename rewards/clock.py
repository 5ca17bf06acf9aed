"""Times of day: ``3:05``, ``10:30 p.m.``, ``22:30``. A ratio where nothing says a time."""

from __future__ import annotations

import re

from rewards.tree import Node, exact, number

_TIME = re.compile(r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?\s*(?:([ap])\.?\s*m\.?)?", re.IGNORECASE)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def read_clock(text: str) -> Node | None:
    """The time that ``text`` shows, or None: ``3:05`` is one, ``3:20`` is a ratio, ``3:20 pm`` a time."""
    match = _TIME.fullmatch(_TEXT.sub(r" \1 ", text).strip())
    if not match or int(match.group(1)) > 24:
        return None
    hours, minutes, seconds, half = match.groups()
    if not half and not minutes.startswith("0"):
        return None
    fields = (number(int(hours)), number(int(minutes)), number(int(seconds or 0)))
    return Node("clock", fields, name=half.lower() if half else "")


def _fields(node: Node) -> tuple[int, ...] | None:
    """Hours, minutes, seconds of a clock, or of a ratio that can be read as one."""
    if node.op not in ("clock", ":"):
        return None
    values = [exact(arg) for arg in node.args]
    whole = [int(v) for v in values if v is not None and v.denominator == 1]
    return (*whole, *[0] * (3 - len(whole))) if len(whole) == len(values) <= 3 else None


def same_time(a: Node, b: Node) -> bool:
    """Whether two times agree; one without a.m. or p.m. may mean either half of the day."""
    first, second = _fields(a), _fields(b)
    if first is None or second is None or first[1:] != second[1:]:
        return False
    if not a.name and not b.name:
        return first[0] == second[0]
    if a.name and b.name:
        return a.name == b.name and first[0] % 12 == second[0] % 12
    marked, bare = (a, second[0]) if a.name else (b, first[0])
    hour = (_fields(marked) or (0,))[0] % 12 + (12 if marked.name == "p" else 0)
    return bare == hour or (bare <= 12 and bare % 12 == hour % 12)
