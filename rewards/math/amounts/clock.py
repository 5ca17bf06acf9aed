"""Times of day, and how a time is told from a ratio.

``h:mm`` with an hour up to 24 and two digits of minutes below 60 is a time and is compared field by field.
It may also be a ratio (1:20 as the scale of a map); a ratio of that form is compared in the same way, as
nothing in the text tells them apart: a ratio must then be stated in the gold's terms. The price is that 2:40
is not accepted for a ratio 1:20; the gain is that it is not accepted for twenty past one. Every other ratio
(2:3, 3:4:5, 1:500, 7:64) is compared by proportion, and 10:15 is right for 2:3.
"""

from __future__ import annotations

import math
import re

from rewards.math.tree import Node, exact_value, number

_TIME = re.compile(
    r"(?:(?:(?:the|this|a|my)\s+)?(?:clock|watch|time|it|display)?\s*(?:shows?|reads?|is|says?|at)\s+)?"
    r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?\s*(?:([ap])\.?\s*m\.?)?(?:\s*o'?clock)?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(\d{1,2})\s*(?:([ap])\.?\s*m\.?|o'?\s*clock)", re.IGNORECASE)
_HAN = re.compile(r"(上午|早上|凌晨|下午|晚上|傍晚)?\s*(\d{1,2})\s*([点:])\s*(?:(\d{1,2})\s*分?|整)?")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_DAY = 24


def read_clock(text: str) -> Node | None:
    """Return the time of day in ``text``, or None: ``3:05``, ``3:20 pm``, ``7 o'clock``, ``下午3点20分``."""
    if ":" not in text and "点" not in text and text[-1:] not in "mM.k":
        return None
    text = _TEXT.sub(r" \1 ", text).strip()
    match = _TIME.fullmatch(text) or _HOUR.fullmatch(text)
    if match is None:
        return _han_clock(text)
    groups = match.groups()
    hours, minutes, seconds, half = groups if match.re is _TIME else (groups[0], "0", None, groups[1])
    return _clock([hours, minutes, *([seconds] if seconds else [])], (half or "").lower())


def _han_clock(text: str) -> Node | None:
    match = _HAN.fullmatch(text)
    if not match or not (match.group(1) or (match.group(3) == "点" and text[-1] != "点")):
        return None
    half = "" if not match.group(1) else "a" if match.group(1) in ("上午", "早上", "凌晨") else "p"
    minutes = match.group(4) or "0"
    return _clock([match.group(2), minutes], half) if int(minutes) < 60 else None


def _clock(fields: list[str], half: str) -> Node | None:
    if int(fields[0]) > _DAY:
        return None
    return Node("clock", tuple(number(int(field)) for field in fields), name=half)


def as_ratio(clock: Node) -> Node:
    """Return a time as the ratio that its text may also be; unchanged if it can be a time only (3:05)."""
    values = [exact_value(arg) or 0 for arg in clock.args]
    return clock if clock.name or min(values[1:]) < 10 else Node(":", clock.args)


def _fields(node: Node) -> tuple[int, ...] | None:
    """Return hours, minutes and seconds of a time, or the terms of a ratio of whole numbers."""
    if node.op not in ("clock", ":", "/"):
        return None
    values = [exact_value(arg) for arg in node.args]
    if node.op == ":" and any(value is not None and value < 10 for value in values[1:]):
        return None  # 3:5 is no time; 3:05 is read as one
    whole = [int(v) for v in values if v is not None and v.denominator == 1]
    return (*whole, *[0] * (3 - len(whole))) if len(whole) == len(values) <= 3 else None


def same_time(a: Node, b: Node) -> bool:
    """Return whether two times agree; one without a.m. or p.m. may be in either half of the day.

    A fraction of the same terms is the same as a time that may be a ratio in lowest terms: 7/32 is 7:32.
    """
    first, second = _fields(a), _fields(b)
    if first is None or second is None or first[1:] != second[1:]:
        return False
    if "/" in (a.op, b.op):
        lowest = math.gcd(*first) == 1 and first[1] != 0
        return first == second and not a.name and not b.name and lowest
    if not a.name and not b.name:
        return first[0] == second[0]
    if a.name and b.name:
        return a.name == b.name and first[0] % 12 == second[0] % 12
    marked, bare = (a, second[0]) if a.name else (b, first[0])
    hour = (_fields(marked) or (0,))[0] % 12 + (12 if marked.name == "p" else 0)
    return bare == hour or (bare <= 12 and bare % 12 == hour % 12)
