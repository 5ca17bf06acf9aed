"""Dates and ranges, which look like differences and quotients: 2020-05-05, 5/6/2020, May 5, 2020, 3-5."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math.tree import Node, number

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = "|".join([*_MONTHS, *(f"{name[:3]}\\.?" for name in _MONTHS), "sept\\.?"])
_ISO = re.compile(r"(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})\s*日?")
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_MONTH_FIRST = re.compile(rf"({_MONTH})\s+(\d{{1,2}})(?:st|nd|rd|th)?(?:\s*,?\s*(\d{{4}}))?", re.IGNORECASE)
_DAY_FIRST = re.compile(
    rf"(?:the\s+)?(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTH})(?:\s*,?\s*(\d{{4}}))?", re.IGNORECASE
)
_CHINESE = re.compile(r"(\d{1,2})\s*月\s*(\d{1,2})\s*[日号]")
_PLAIN = r"(\d{1,9}(?:\.\d{1,9})?)"
_RANGE = re.compile(rf"(?:from\s+)?{_PLAIN}\s*(?:-|to|~|\\sim)\s*{_PLAIN}")
_WRAPPED = re.compile(r"\\text\s*\{([^{}]*)\}|\$")


def read_date(text: str) -> Node | None:
    """Return the date in a cleaned text as year (0 if none), month and day, or None.

    The name of ``5/6/2020`` is "swappable": its fields are month and day, or day and month.
    """
    if not any(c.isdigit() for c in text) or len(text) > 60:
        return None
    text = _WRAPPED.sub(lambda match: match.group(1) or "", text).strip(" .")
    iso = _ISO.fullmatch(text)
    if iso:
        return _date(int(iso[1]), int(iso[2]), int(iso[3]))
    slashed = _SLASHED.fullmatch(text)
    if slashed:
        first, second, year = (int(field) for field in slashed.groups())
        swappable = "swappable" if first <= 12 and second <= 12 else ""
        return _date(year, first, second, swappable) or _date(year, second, first)
    chinese = _CHINESE.fullmatch(text)
    if chinese:
        return _date(0, int(chinese[1]), int(chinese[2]))
    named = _MONTH_FIRST.fullmatch(text)
    if named:
        return _date(int(named[3] or 0), _month(named[1]), int(named[2]))
    named = _DAY_FIRST.fullmatch(text)
    return _date(int(named[3] or 0), _month(named[2]), int(named[1])) if named else None


def _month(name: str) -> int:
    return next(i for i, month in enumerate(_MONTHS, 1) if month.startswith(name[:3].lower()))


def _date(year: int, month: int, day: int, name: str = "") -> Node | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return Node("date", (number(year), number(month), number(day)), name=name)


def same_date(a: Node, b: Node) -> bool:
    """Return whether two dates agree in all fields; one of the form 5/6/2020 may be read in either order."""
    if a.op != "date" or b.op != "date":
        return False
    if a.args == b.args:
        return True
    swapped = (b.args[0], b.args[2], b.args[1])
    return bool(a.name) != bool(b.name) and a.args == swapped


def read_range(text: str) -> Node | None:
    """Return ``3-5`` or "3 to 5" as a range from the smaller to the larger number, else None.

    ``5-3`` remains a difference, as nobody writes a range from its end.
    """
    match = _RANGE.fullmatch(text)
    if not match:
        return None
    low, high = Fraction(match[1]), Fraction(match[2])
    return Node("range", (number(low), number(high))) if low < high else None
