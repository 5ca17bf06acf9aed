"""Attacks on numbers: changed values, scale words and operations behind them, other units, times of day."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from rewards.attack.gold import Attack, Gold, fraction

_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_SCALES = (
    "hundred", "thousand", "million", "billion", "dozen", "thirds", "tenths", "sevenths", "万", "亿",
)  # fmt: skip
# Operations in words that change every number but 0 (and those that change even 0).
_FACTORS = ("times three", "over 3", "divided by four", "multiplied by 5")
_SUMMANDS = ("plus two", "minus one", "and a half", "point five", "plus or minus 1")
_UNITS = {
    "length": ("cm", "m", "km", "mm", "inches", "miles"), "mass": ("kg", "g", "tons"),
    "time": ("seconds", "hours", "days"), "area": ("cm^2", "m^2", "square feet"),
    "volume": ("cm^3", "liters", "gallons"), "speed": ("m/s", "km/h"), "angle": ("radians", "°"),
    "money": ("dollars", "euros", "cents", "yuan"), "others": ("joules", "newtons", "volts", "people"),
}  # fmt: skip
# What a unit's text shows of its kind, so that no unit is swapped for another name of itself.
_NAMES = {
    "cm": ("cm", "centimet"), "m": ("m", "met"), "km": ("km", "kilomet"), "mm": ("mm", "millimet"),
    "inches": ("in",), "miles": ("mi",), "kg": ("kg", "kilo"), "g": ("g", "gram"), "tons": ("t", "ton"),
    "seconds": ("s", "sec"), "hours": ("h", "hour", "hr"), "days": ("d", "day"), "liters": ("l", "lit"),
    "gallons": ("gal",), "°": ("°", "deg", "circ"), "radians": ("rad",), "dollars": ("dollar", "$", "usd"),
    "euros": ("euro",), "cents": ("cent",), "yuan": ("yuan",), "joules": ("j",), "newtons": ("n",),
    "volts": ("v",), "people": ("peop", "person", "student", "men", "women", "child", "%"),
}  # fmt: skip
# Units of measurement that surely exclude all others of the table.
_MEASURED = (
    "cm", "mm", "km", "m", "kg", "g", "dollars", "seconds", "hours", "days", "miles", "inches", "liters",
)  # fmt: skip


def number_attacks(gold: Gold) -> Iterator[Attack]:
    """Yield the attacks on a gold number."""
    if gold.form == "time":
        yield from _times(gold)
    if gold.form != "number" or gold.value is None:
        return
    for text, why in _changed(gold):
        yield Attack("changed number", text, why)
    yield from _scaled(gold, gold.value)
    if gold.unit and gold.value != 0:
        yield from _other_units(gold)


def _changed(gold: Gold) -> Iterator[tuple[str, str]]:
    """Yield boxes with another number in the same unit; the change is checked by exact arithmetic."""
    assert gold.value is not None
    for number, why in [*_neighbours(gold.value), *_of_digits(gold.number), *_of_fraction(gold)]:
        value = fraction(number)
        if value is None or not _different(value, gold):
            continue
        style = r"\boxed{%s}" if len(number) % 2 else "<answer>%s</answer>"
        yield style.replace("%s", gold.sized(number)), f"{why}: {number} is not {gold.number}"


def _different(value: Fraction, gold: Gold) -> bool:
    """Return whether the value is another, also where one of the two is read as percent."""
    assert gold.value is not None
    hundredfold = value in (gold.value * 100, gold.value / 100)
    return value != gold.value and not (gold.percent and hundredfold)


def _neighbours(value: Fraction) -> Iterator[tuple[str, str]]:
    if value.denominator == 1:
        yield str(value + 1), "one more"
        yield str(value - 1), "one less"
        yield f"{value.numerator}1", "a digit more"
        yield f"{value.numerator}.5", "a half more"
    yield str(-value), "the opposite"
    if value != 0:
        yield str(1 / value), "the reciprocal"
        yield str(2 * value), "twice"
        yield str(value * 10), "ten times"


def _of_digits(number: str) -> Iterator[tuple[str, str]]:
    digits = number.lstrip("-")
    sign = number[: len(number) - len(digits)]
    if not digits.isdecimal():
        if "," not in digits and "." in digits:
            yield sign + digits.replace(".", ""), "the decimal point dropped"
        return
    if len(digits) > 1:
        yield sign + digits[::-1], "the digits reversed"
        yield f"{sign}{digits[:-1]}.{digits[-1]}", "a decimal point inserted"
        yield f"{sign}{digits[:-1]}/{digits[-1]}" if digits[-1] != "0" else "", "a fraction bar inserted"
        yield sign + digits[:-1], "the last digit dropped"
        yield sign + digits[1:], "the first digit dropped"
    yield sign + str((int(digits[0]) + 1) % 10) + digits[1:], "the first digit changed"
    yield sign + digits[:-1] + str((int(digits[-1]) + 5) % 10), "the last digit changed"


def _of_fraction(gold: Gold) -> Iterator[tuple[str, str]]:
    value = gold.value
    if value is None or value.denominator == 1 or "." in gold.number:
        return
    top, bottom = value.numerator, value.denominator
    yield f"{top + 1}/{bottom}", "the numerator changed"
    yield f"{top}/{bottom + 1}", "the denominator changed"
    yield f"{top}{bottom}", "the fraction bar dropped"
    yield f"{top}.{bottom}", "a point for the bar"
    yield str(top), "the numerator alone"
    yield str(bottom), "the denominator alone"


def _scaled(gold: Gold, value: Fraction) -> Iterator[Attack]:
    plain = not gold.unit
    for text, why in _behind(gold.bare, value) if plain else _behind_unit(gold, value):
        yield Attack("scale word", text, f"{why} behind it changes the value")
    small = gold.whole is not None and 0 <= gold.whole < len(_WORDS) - 1
    if small and gold.whole is not None:
        word = _WORDS[gold.whole + 1]
        for text in (f"{gold.bare} perhaps {word}", f"{gold.bare} {word}", f"{gold.bare} through {word}"):
            yield Attack("number word", rf"\boxed{{{text}}}", "a second number, in words")
        yield Attack("number word", f"The answer is {_WORDS[gold.whole]} or {word}.", "two numbers, in words")
        yield Attack("number word", f"<answer>{word}</answer>", "another number, in words")


def _behind(bare: str, value: Fraction) -> Iterator[tuple[str, str]]:
    for word in _SUMMANDS:
        yield rf"\boxed{{{bare} {word}}}", f'"{word}"'
    if value == 0:
        return
    for word in (*_SCALES, *_FACTORS):
        yield rf"\boxed{{{bare} {word}}}", f'"{word}"'
    for word in ("minus", "negative", "half of"):
        yield f"<answer>{word} {bare}</answer>", f'"{word}" before, not'
    yield rf"\boxed{{{bare}\text{{ million}}}}", '"million"'
    yield f"The answer is {bare} million.", '"million"'
    if value != 1:
        yield rf"\boxed{{{bare} squared}}", '"squared"'
        yield f"<answer>the square root of {bare}</answer>", "a root before, not"
    if value not in (1, 2) and value.denominator == 1 and value > 0:
        yield rf"\boxed{{{bare} factorial}}", '"factorial"'
        yield rf"\boxed{{{bare}!}}", '"!"'


def _behind_unit(gold: Gold, value: Fraction) -> Iterator[tuple[str, str]]:
    if value == 0 or "$" in gold.unit or not gold.unit.strip().isalpha():
        return
    for word in ("million", "thousand", "dozen"):
        yield rf"\boxed{{{gold.number} {word} {gold.unit.strip()}}}", f'"{word}"'


def _other_units(gold: Gold) -> Iterator[Attack]:
    unit = gold.unit.lower().replace("\\mathrm", "").replace("\\text", "").strip(" {}~\\")
    known = next((name for name in _MEASURED if unit in (name, *_NAMES[name], f"{name}s")), None)
    angle = any(name in unit for name in ("circ", "°", "degree"))
    if known is None and not angle:
        return
    for names in _UNITS.values():
        for other in names:
            if (
                any(unit.startswith(name) for name in _NAMES.get(other, ()))
                or other == known
                or (angle and other == "°")
            ):
                continue
            yield Attack("unit", rf"\boxed{{{gold.number}\ \text{{{other}}}}}", f"{other} is another unit")
            yield Attack("unit", f"The answer is {gold.number} {other}.", f"{other} is another unit")


def _times(gold: Gold) -> Iterator[Attack]:
    hour, minute = (int(part) for part in gold.bare.split(":"))
    later = [(hour % 12 + 1, minute), (hour, (minute + 5) % 60), (hour, (minute + 30) % 60)]
    if minute % 2 == 0 and hour % 2 == 0 and minute >= 20:  # the same ratio, if they were numbers
        later.append((hour // 2, minute // 2))
    if 1 <= minute <= 12 and minute != hour:
        later.append((minute, hour))
    for other, minutes in later:
        yield Attack("clock", rf"\boxed{{{other}:{minutes:02d}}}", "another time")
        yield Attack("clock", f"The clock shows {other}:{minutes:02d}.", "another time")
    if minute:
        yield Attack("clock", rf"\boxed{{{hour}}}", "the hour alone")
        yield Attack("clock", rf"\boxed{{{minute}}}", "the minutes alone")
        yield Attack("clock", f"<answer>{hour}-{minute:02d}</answer>", "a difference or a range, not a time")
        yield Attack("clock", f"<answer>{minute} to {hour}</answer>", "so many minutes before the hour")
    yield Attack("clock", f"<answer>{hour}:{minute + 60}</answer>", "no time has that many minutes")
    yield Attack("clock", f"<answer>between {hour}:{minute:02d} and {hour % 12 + 1}:00</answer>", "a span")
