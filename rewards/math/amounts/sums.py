r"""Sums of quantities: "3 m + 20 cm", "2 hours 30 minutes", "5 ft 10 in", ``63^{\circ} 45'``, "3元5角"."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math.amounts.unit_text import combined, find_unit
from rewards.math.amounts.units import DEGREES, Unit, conversions
from rewards.math.tree import Node

_MAX_TERMS = 6
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TERM = re.compile(
    r"\s*(?:,\s*)?(?:and\s+)?(?P<sign>[-+])?\s*(?P<number>\d{1,30}(?:\.\d{1,30})?(?:/[1-9]\d{0,30})?)"
    r"\s*(?P<unit>[A-Za-zμΩ°]+\.?(?:\s?\^\{?[23]\}?|(?<=[a-z])[23](?!\d))?|[\u4e00-\u9fff]+)"
)
_ANGLE = re.compile(
    r"(-?)(\d+(?:\.\d+)?)\s*\^\{\\circ\}\s*(\d+(?:\.\d+)?)\s*(?:'|\^\s*\{?\s*\\prime\s*\}?)"
    r"\s*(?:(\d+(?:\.\d+)?)\s*(?:''|\"|\^\s*\{?\s*\\prime\s*\\prime\s*\}?))?"
)
# Letters that are short for these after a time in hours or days.
_CLOCK_LETTERS = {"m": "min", "h": "h", "s": "s", "d": "day"}


def _terms(text: str) -> list[tuple[str, Fraction, str]] | None:
    """Return sign, number and unit of each term, or None if the text is no such sequence."""
    terms: list[tuple[str, Fraction, str]] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if not match or len(terms) >= _MAX_TERMS:
            return None
        position = match.end()
        terms.append((match["sign"] or "", Fraction(match["number"]), match["unit"]))
    return terms if len(terms) > 1 else None


def _units(terms: list[tuple[str, Fraction, str]]) -> list[Unit] | None:
    names = [name for _, _, name in terms]
    timed = find_unit(names[0])
    if names[0] == "d" or (timed and timed.measure == (("time", 1),)):
        names = [_CLOCK_LETTERS.get(name, name) for name in names]
    units = [find_unit(name) for name in names]
    return [unit for unit in units if unit] if all(units) else None


def _in_first(unit: Unit, first: Unit) -> tuple[Fraction, Unit] | None:
    """Return the size of a unit in the first one, and the meaning of the first that fits."""
    for meaning in (first, *first.others):
        for other in (unit, *unit.others):
            fits = meaning.measure and meaning.measure == other.measure and not meaning.offset
            if fits and meaning.pi == other.pi:
                return other.factor / meaning.factor, meaning
    return None


def _angle(text: str) -> tuple[Node, Unit] | None:
    match = _ANGLE.fullmatch(text.strip())
    if not match:
        return None
    degrees, minutes, seconds = (Fraction(match.group(i) or 0) for i in (2, 3, 4))
    value = degrees + minutes / 60 + seconds / 3600
    return Node("num", value=-value if match.group(1) else value), DEGREES


def read_sum(text: str) -> tuple[Node, Unit] | None:
    """Return the value of a sum of quantities in the unit of its first term, else None.

    Terms without a sign must get smaller, as in "2 hours 30 minutes". Terms that measure different things are
    no sum, and letters alone ("3 m + 2 s") are algebra.
    """
    if "circ" in text:
        return _angle(text)
    text = _TEXT.sub(r" \1 ", text).replace("\\min", "min").strip()
    if "\\" in text:
        return None
    terms = _terms(text)
    units = _units(terms) if terms else None
    if not terms or not units or _algebra(terms):
        return None
    value, meaning, last = Fraction(0), units[0], None
    for (sign, number, _), unit in zip(terms, units, strict=True):
        found = _in_first(unit, meaning)
        if found is None or (not sign and last is not None and found[0] >= last):
            return None
        last, meaning = found
        value += number * last * (-1 if sign == "-" else 1)
    return Node("num", value=value), meaning


_FACTOR = re.compile(r"\s*(?:\\times|\\cdot|\*)\s*")


def read_product(text: str) -> tuple[Node, Unit] | None:
    """Return the value of "3 cm × 4 cm", with the product of its units; None if a factor has no unit."""
    if "\\times" not in text and "\\cdot" not in text and "*" not in text:
        return None
    pieces = _FACTOR.split(text)
    matches = [_TERM.fullmatch(_TEXT.sub(r" \1 ", piece).strip()) for piece in pieces]
    if len(pieces) > _MAX_TERMS or not all(matches):
        return None
    value, factors = Fraction(1), []
    for match in matches:
        unit = find_unit(match["unit"]) if match else None
        if match is None or unit is None or unit.offset:
            return None
        value *= Fraction(match["number"])
        factors.append((unit, 1))
    unit = combined(text, factors) if any(len(m["unit"]) > 1 for m in matches if m) else None
    return (Node("num", value=value), unit) if unit else None


def _algebra(terms: list[tuple[str, Fraction, str]]) -> bool:
    signed = any(sign for sign, _, _ in terms[1:])
    return signed and all(len(name) == 1 and name.isascii() for _, _, name in terms)


_INNER_UNIT = r"(?:\\text\s*\{\s*)?(cm|mm|dm|km|kg)(?:\s*\})?(?![A-Za-z^])"
_INNER = re.compile(rf"(?<=\d)\s*{_INNER_UNIT}")


def drop_inner_units(text: str, unit: Unit | None) -> str:
    """Remove a unit that repeats within a chain of relations or a ratio: "8 cm < AB < 10 cm", "2 cm : 3 cm".

    Elsewhere, and where the units differ, the text is unchanged: a sum of 3 km and 20 cm is not 23.
    """
    found = set(_INNER.findall(text))
    related = re.search(r"[<>:={]|\\(?:le|ge|ne|approx)(?![a-z])", text)
    if len(found) != 1 or not related or re.search(r"[-+*/]|\\(?:cdot|times)", text):
        return text
    inner = find_unit(found.pop())
    same = unit is None or (inner is not None and conversions(inner, unit) and inner.factor == unit.factor)
    return _INNER.sub("", text) if same else text
