"""Units that answers carry: what they measure and how they convert.

A unit that contradicts the gold's makes an answer wrong, a missing one does not, and 4000 cm is 40 m. Counted
nouns (``360 sets``) are not units of measure: they never contradict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

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
    """What a unit measures, and how many of that measure's base unit it is (None: a counted noun)."""

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


def contradict(a: Unit | None, b: Unit | None) -> bool:
    """Whether both units are known and measure different things."""
    return bool(a and b and a.measure and b.measure and a.measure != b.measure)


def conversion(a: Unit | None, b: Unit | None) -> Fraction:
    """By what a number in unit ``a`` is multiplied to be in unit ``b``; 1 where either is unknown."""
    if not (a and b and a.measure and a.measure == b.measure):
        return Fraction(1)
    return a.factor / b.factor
