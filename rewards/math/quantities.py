"""Quantities: units and their conversion, amounts (a number with its unit), times of day.

A unit that conflicts with the gold's makes an answer wrong, a missing one does not, and 4000 cm is 40 m.
Counted nouns (``360 sets``) are not units of measure and never conflict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.math.tokens import FUNCTIONS
from rewards.math.tree import Node, exact_value, number

_LENGTH = {
    "mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000", "inch": "127/5000",
    "foot": "381/1250", "yard": "1143/1250", "mile": "201168/125",
}  # fmt: skip
_OTHER = {
    "mg": ("mass", "1/1000"), "g": ("mass", "1"), "kg": ("mass", "1000"), "ton": ("mass", "1000000"),
    "ml": ("volume", "1/1000000"), "l": ("volume", "1/1000"), "s": ("time", "1"), "min": ("time", "60"),
    "h": ("time", "3600"), "day": ("time", "86400"), "week": ("time", "604800"), "year": ("years", "1"),
    "month": ("months", "1"), "°": ("angle", "1"), "rad": ("radians", "1"), "%": ("share", "1/100"),
    "yuan": ("yuan", "1"), "dollar": ("dollar", "1"), "cent": ("dollar", "1/100"), "euro": ("euro", "1"),
    "pound": ("pound", "1"), "m/s": ("speed", "1"), "km/h": ("speed", "5/18"), "n": ("force", "1"),
    "j": ("energy", "1"), "w": ("power", "1"), "v": ("voltage", "1"), "pa": ("pressure", "1"),
    "°C": ("celsius", "1"), "°F": ("fahrenheit", "1"), "mi/h": ("mph", "1"),
}  # fmt: skip
_NAMES = {
    "millimeter": "mm", "centimeter": "cm", "decimeter": "dm", "meter": "m", "kilometer": "km", "metre": "m",
    "centimetre": "cm", "kilometre": "km", "inches": "inch", "feet": "foot", "ft": "foot", "milligram": "mg",
    "gram": "g", "kilogram": "kg", "milliliter": "ml", "mL": "ml", "liter": "l", "litre": "l", "L": "l",
    "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "degree": "°", "deg": "°",
    "percent": "%", "RMB": "yuan", "元": "yuan", "¥": "yuan", "$": "dollar", "€": "euro", "£": "pound",
    "radian": "rad", "厘米": "cm", "毫米": "mm", "分米": "dm", "千米": "km", "米": "m", "千克": "kg",
    "克": "g", "升": "l", "毫升": "ml", "秒": "s", "分钟": "min", "小时": "h", "度": "°",
    "N": "n", "J": "j", "W": "w",
    "V": "v", "Pa": "pa", "mph": "mi/h", "平方厘米": "cm2", "平方米": "m2", "立方厘米": "cm3", "立方米": "m3",
}  # fmt: skip
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


@dataclass(frozen=True)
class Unit:
    """A unit: the measured quantity (None for a counted noun) and its size in that quantity's base unit."""

    name: str
    measure: str | None = None
    factor: Fraction = Fraction(1)


DEGREES = Unit("°", "angle")
RADIANS = Unit("rad", "radians")
PERCENT = Unit("%", "share", Fraction(1, 100))


def _base(word: str) -> str | None:
    for candidate in (word, word.removesuffix("s"), word.lower(), word.lower().removesuffix("s")):
        found = _NAMES.get(candidate, candidate)
        if found in _LENGTH or found in _OTHER or (found[-1:] in ("2", "3") and found[:-1] in _LENGTH):
            return found
    return None


def find_unit(text: str) -> Unit | None:
    """Return the unit that ``text`` names (``cm``, ``square meters``, ``cm^{2}``), or None."""
    text = re.sub(r"[{}^\s]+", " ", text.replace("^{\\circ}", "°")).strip(" .")
    words = text.split(" ")
    power = _POWER_WORDS.get(words[0].rstrip(".").lower(), 1) if len(words) > 1 else 1
    rest = " ".join(words[1:] if power > 1 else words).replace("° C", "°C")
    match = re.fullmatch(r"(.+?)\s*([23])", rest)
    if match:
        rest, power = match.group(1), int(match.group(2))
    base = _base(rest)
    if base and base[-1] in "23" and base[:-1] in _LENGTH:
        base, power = base[:-1], int(base[-1])
    if base is None:
        return None
    if base in _LENGTH:
        return Unit(
            f"{base}{power}", ("length", "area", "volume")[power - 1], Fraction(_LENGTH[base]) ** power
        )
    measure, factor = _OTHER[base]
    return Unit(base, measure, Fraction(factor))


def units_conflict(a: Unit | None, b: Unit | None) -> bool:
    """Return whether both units are known and measure different quantities."""
    return bool(a and b and a.measure and b.measure and a.measure != b.measure)


def conversion_factor(a: Unit | None, b: Unit | None) -> Fraction:
    """Return the factor that converts a number from unit ``a`` to ``b``; 1 if either is unknown."""
    if not (a and b and a.measure and a.measure == b.measure):
        return Fraction(1)
    return a.factor / b.factor


_UNIT_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*(\^?\s*\{?[23]\}?)?[\s.]*$")
_UNIT_WORD = re.compile(
    r"(?<=[\d)}\]\sπ])((?:square|cubic|sq\.?)\s+)?([A-Za-z°%€£¥]+(?:/[a-z]+)?|[\u4e00-\u9fff]+)(\^?\s*\{?[23]\}?)?[\s.]*$"
)
_CURRENCY = re.compile(r"^\s*(?:\\\$|[¥€£])\s*(?=\d)")
_WORD = r"(?:of|per|a|in|[A-Za-z][A-Za-z'-]{2,})"
_COUNTED = re.compile(
    rf"([-+]?[\d,]+(?:\.\d+)?(?:/\d+)?)\s+([A-Za-z][A-Za-z'-]{{2,}}(?:\s+{_WORD}){{1,5}}|[A-Za-z]+-[a-z]{{3,}})"
)
_SINGLE = re.compile(r"[-+]?[\d,]+(?:\.\d+)?")
# The letters that are units after a number; any other is a letter of algebra.
_LETTER_UNITS = frozenset("mghsLNJWVK")
_COMPOUND = re.compile(r"(\d+)\s*([A-Za-z°]+)\s*,?\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def letter_unit(node: Node) -> Unit | None:
    """Return the unit of a letter of algebra, or of its square or cube, read as a unit: ``m``, ``m^2``."""
    letter, power = (node.args[0], node.args[1]) if node.op == "^" else (node, None)
    if letter.op != "sym" or letter.name not in _LETTER_UNITS or (power and power.value not in (2, 3)):
        return None
    return find_unit(letter.name + (str(power.value) if power else ""))


def _counted(text: str) -> tuple[str, Unit] | None:
    """Split a number from the words that it counts: "19 peppermint candies", "-4 rounds per year"."""
    match = _COUNTED.fullmatch(text)
    if not match or any(word in FUNCTIONS for word in match.group(2).split()):
        return None
    return match.group(1), find_unit(match.group(2)) or Unit(match.group(2))


def split_unit(text: str) -> tuple[str, Unit | None]:
    """Split off the unit at the text's end, if there is one with text before it."""
    text = _CURRENCY.sub("", text)
    whole = _compound(text) or _counted(text)
    if whole:
        return whole
    match = _UNIT_TEXT.search(text)
    if match and text[: match.start()].strip():
        name = match.group(1) + (match.group(2) or "")
        return text[: match.start()], find_unit(name) or Unit(name.strip())
    match = _UNIT_WORD.search(text)
    before = text[: match.start()].strip() if match else ""
    if not match or not before:
        return text, None
    spaced = text[len(before) : len(before) + 1].isspace()
    return _split_unit_word(text, before, "".join(group or "" for group in match.groups()), spaced)


def _compound(text: str) -> tuple[str, Unit] | None:
    """Return ``2 hours 30 minutes`` in the first of its two units."""
    match = _COMPOUND.fullmatch(text)
    units = [find_unit(match.group(i)) for i in (2, 4)] if match else []
    if not match or not units[0] or not units[1] or not units[0].measure:
        return None
    if units[0].measure != units[1].measure or units[0].factor <= units[1].factor:
        return None
    value = Fraction(match.group(1)) + Fraction(match.group(3)) * conversion_factor(units[1], units[0])
    return f"{value.numerator}/{value.denominator}", units[0]


def _split_unit_word(text: str, before: str, name: str, spaced: bool) -> tuple[str, Unit | None]:
    """Split off a bare word that is a known unit, or that follows a plain number and is no algebra."""
    plain = _SINGLE.fullmatch(before)
    unit = find_unit(name)
    letters = re.sub(r"[^A-Za-z]", "", name)
    if len(letters) == 1 and not (plain and (spaced or len(before) > 1) and letters in _LETTER_UNITS):
        return text, None
    if unit and not re.search(r"\\[A-Za-z]*\s*$", text[: len(before)]):
        return before, unit
    if plain and len(letters) > 2 and letters not in ("sqrt", "sin", "cos", "tan", "log"):
        return before, Unit(name)
    return text, None


def drop_inner_units(text: str) -> str:
    """Remove the units of the terms within an expression."""
    return re.sub(r"(?<=\d)\s*(?:\\text\s*\{\s*)?(?:cm|mm|dm|km|kg)(?:\s*\})?(?![A-Za-z^])", "", text)


_TIME = re.compile(r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?\s*(?:([ap])\.?\s*m\.?)?", re.IGNORECASE)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def read_clock(text: str) -> Node | None:
    """Return the time of day in ``text``, or None: ``3:05``, ``3:20 pm`` are times, ``3:20`` is a ratio."""
    match = _TIME.fullmatch(_TEXT.sub(r" \1 ", text).strip())
    if not match or int(match.group(1)) > 24:
        return None
    hours, minutes, seconds, half = match.groups()
    if not half and not minutes.startswith("0"):
        return None
    fields = (number(int(hours)), number(int(minutes)), number(int(seconds or 0)))
    return Node("clock", fields, name=half.lower() if half else "")


def _fields(node: Node) -> tuple[int, ...] | None:
    """Return hours, minutes and seconds of a time, or of a ratio that can be read as one."""
    if node.op not in ("clock", ":"):
        return None
    values = [exact_value(arg) for arg in node.args]
    whole = [int(v) for v in values if v is not None and v.denominator == 1]
    return (*whole, *[0] * (3 - len(whole))) if len(whole) == len(values) <= 3 else None


def same_time(a: Node, b: Node) -> bool:
    """Return whether two times agree; one without a.m. or p.m. may be in either half of the day."""
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
