"""Quantities: a number and its unit, in digits, words ("3 million people") or as a sum ("3 m + 20 cm")."""

from __future__ import annotations

import re
from dataclasses import replace

from rewards.math.amounts.counted import read_phrase
from rewards.math.amounts.han_numbers import read_han_number
from rewards.math.amounts.money import without_money
from rewards.math.amounts.spoken import read_spoken
from rewards.math.amounts.sums import read_product, read_sum
from rewards.math.amounts.trailing_units import PLAIN, SPACED_LETTERS, Quantity, after_expression, after_plain
from rewards.math.amounts.unit_text import find_unit
from rewards.math.amounts.units import Unit
from rewards.math.tree import Node, number

_HAS_UNIT = re.compile(r"[A-Za-z°%‰'€£¥₹₩₽₱₪฿₫₦¢ΩÅ\u4e00-\u9fff]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_BRACKETED = re.compile(
    r"([^()]*[^()\s])\s*\(\s*(?:\\text\s*\{)?([A-Za-z][A-Za-z\s'.-]*|[\u4e00-\u9fff]+)\}?\s*\)"
)
_OF_ONE = re.compile(r"of (?:an?|the) ")
_ONE = re.compile(r"(?:an?)\s+(.+)", re.IGNORECASE)


def letter_unit(node: Node) -> Unit | None:
    """Return the unit of a letter of algebra, or of its square or cube, read as a unit: ``m``, ``m^2``."""
    letter, power = (node.args[0], node.args[1]) if node.op == "^" else (node, None)
    if letter.op != "sym" or letter.name not in SPACED_LETTERS or (power and power.value not in (2, 3)):
        return None
    return find_unit(letter.name + (f"^{power.value}" if power else ""))


def split_unit(text: str) -> Quantity | None:
    """Split the number from its unit. None if the words after the number change or deny it."""
    if not _HAS_UNIT.search(text):
        return Quantity(text)
    text, money = without_money(text)
    if not _HAS_UNIT.search(text):
        return Quantity(text, money)
    read = _in_words(text) or _computed(text)
    if read:
        return replace(read, unit=money or read.unit)
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed and PLAIN.fullmatch(bracketed.group(1)):
        text = f"{bracketed.group(1)} {bracketed.group(2)}"
    plain = PLAIN.match(text)
    if plain:
        return after_plain(text, plain.end(), money)
    return _defined(text) or after_expression(text)


def _defined(text: str) -> Quantity | None:
    """Split the unit from the value of ``x = 5 m``."""
    name, equals, value = text.rpartition("=")
    named = equals and name.strip() and name.rstrip()[-1] not in "<>!"
    plain = PLAIN.match(value.strip()) if named else None
    found = after_plain(value.strip(), plain.end(), None) if plain else None
    return replace(found, text=f"{name}={found.text}") if found and found.unit else None


def _in_words(text: str) -> Quantity | None:
    """Return the quantity of a number in words: "3 million people", "an hour", "五公斤"."""
    spoken = _TEXT.sub(r" \1 ", text).strip()
    if _HAN.search(spoken):
        found = read_han_number(spoken)
        return Quantity("", found[1], number(found[0])) if found else None
    if "\\" in spoken or "=" in spoken:
        return None
    read = read_spoken(spoken)
    if read is None:
        one = _ONE.fullmatch(spoken)
        unit = find_unit(one.group(1)) if one else None
        return Quantity("", unit, number(1)) if unit else None
    value, rest = read
    if not rest:
        return Quantity("", None, number(value))
    unit = read_phrase(_OF_ONE.sub("", rest))
    # "Three Gorges Dam" is a name.
    name = not spoken[0].isdigit() and unit and not unit.measure and rest != rest.casefold()
    return Quantity("", unit, number(value)) if unit and not name else None


def _computed(text: str) -> Quantity | None:
    found = read_sum(text) or read_product(text)
    return Quantity("", found[1], found[0]) if found else None
