"""Amounts: the number and the unit of a blank, told apart."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.tokens import FUNCTIONS
from rewards.tree import Node
from rewards.units import Unit, conversion, find_unit

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
# The letters that are units where a number stands before them; any other is a letter of algebra.
_LETTER_UNITS = frozenset("mghsLNJWVK")
_COMPOUND = re.compile(r"(\d+)\s*([A-Za-z°]+)\s*,?\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def letter_unit(node: Node) -> Unit | None:
    """The unit that a letter of algebra, or its square or cube, would be: ``m``, ``m^2``."""
    letter, power = (node.args[0], node.args[1]) if node.op == "^" else (node, None)
    if letter.op != "sym" or letter.name not in _LETTER_UNITS or (power and power.value not in (2, 3)):
        return None
    return find_unit(letter.name + (str(power.value) if power else ""))


def _counted(text: str) -> tuple[str, Unit] | None:
    """Separate what several plain words count: "19 peppermint candies", "-4 rounds per year"."""
    match = _COUNTED.fullmatch(text)
    if not match or any(word in FUNCTIONS for word in match.group(2).split()):
        return None
    return match.group(1), find_unit(match.group(2)) or Unit(match.group(2))


def take_unit(text: str) -> tuple[str, Unit | None]:
    """Separate the unit at the text's end, if there is one and something before it."""
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
    return _take_word(text, before, "".join(group or "" for group in match.groups()), spaced)


def _compound(text: str) -> tuple[str, Unit] | None:
    """``2 hours 30 minutes`` in the first of its two units."""
    match = _COMPOUND.fullmatch(text)
    units = [find_unit(match.group(i)) for i in (2, 4)] if match else []
    if not match or not units[0] or not units[1] or not units[0].measure:
        return None
    if units[0].measure != units[1].measure or units[0].factor <= units[1].factor:
        return None
    value = Fraction(match.group(1)) + Fraction(match.group(3)) * conversion(units[1], units[0])
    return f"{value.numerator}/{value.denominator}", units[0]


def _take_word(text: str, before: str, name: str, spaced: bool) -> tuple[str, Unit | None]:
    """A bare word is a unit if it is known, or if it follows a plain number and is no letter of algebra."""
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


def without_inner_units(text: str) -> str:
    """Without the units of the terms inside of an expression."""
    return re.sub(r"(?<=\d)\s*(?:\\text\s*\{\s*)?(?:cm|mm|dm|km|kg)(?:\s*\})?(?![A-Za-z^])", "", text)
