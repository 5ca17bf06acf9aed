"""Quantities: a number with its unit ("3√5 ft/s"), in words ("3 million people"), or a sum ("3 m + 20 cm")."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from rewards.math.counted import read_han, read_phrase
from rewards.math.han_numbers import read_han_number
from rewards.math.spoken import read_spoken
from rewards.math.sums import read_sum
from rewards.math.tree import Node
from rewards.math.unit_text import find_unit
from rewards.math.units import Unit

_MAX_TAIL, _MAX_STARTS = 80, 8
_HAS_UNIT = re.compile(r"[A-Za-z°%‰'€£¥₹₩₽₱₪¢Ω\u4e00-\u9fff]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_PLAIN = re.compile(
    r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:\s*\\frac\s*\{\d+\}\s*\{\d+\}|\s*/\s*\d+)?|[-+]?\\frac\s*\{\d+\}\s*\{\d+\}"
)
_MONEY_BEFORE = re.compile(r"^\s*(?:(US|USD|EUR|GBP|CNY|RMB|INR|Rs\.?|[₹₩₽₱₪฿₫₦€£¥])\s*(?=\d)|\\\$\s*(?=\d))")
_MONEY = re.compile(r"(?<=\d)\\text\{(dollar|[¥€£])\}\s*(?=[A-Za-z万亿千百])")
_SHORT_SCALES = {
    "k": 1000,
    "K": 1000,
    "m": 10**6,
    "M": 10**6,
    "b": 10**9,
    "B": 10**9,
    "bn": 10**9,
    "mn": 10**6,
}
_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_BRACKETED = re.compile(r"(.*\S)\s*\(\s*(?:\\text\s*\{)?([A-Za-z][A-Za-z\s'.-]*|[\u4e00-\u9fff]+)\}?\s*\)")
_START = re.compile(
    r"\\(?:text\s*\{|frac|mu(?![a-z])|Omega|ohm|min|sec)|(?<![A-Za-z\\])[A-Za-z]|[°%‰€£¥Ω\u4e00-\u9fff]"
)
_PROGRAM = re.compile(r"([-+]?\d{1,20}(?:\.\d{0,20})?)[eE]([-+]?\d{1,3})")
_COMMANDS = re.compile(r"\\(?!text)[a-zA-Z]+")
# The letters that are units after a number; any other is a letter of algebra.
_LETTER_UNITS = frozenset("mghsLNJWVK")
_SPACED_LETTERS = _LETTER_UNITS | frozenset("ACFTHSMBtΩ")
_LETTER_PRODUCTS = frozenset(["N m", "N s", "J s", "A h", "W h", "V s", "A s", "C m", "T m"])
_BARE_LETTER = re.compile(r"([A-Za-z])\s*(?:\^\s*\{?\s*[23]\s*\}?)?")


@dataclass(frozen=True)
class Quantity:
    """A number and its unit.

    Attributes:
        text: the mathematics before the unit, which is still to be parsed.
        unit: the unit or the counted noun, if any.
        tree: the number instead of ``text``, where it was read from words or from a sum.
        letters: whether the unit may also be letters of algebra, as in "5 m".
    """

    text: str
    unit: Unit | None = None
    tree: Node | None = None
    letters: bool = False


def letter_unit(node: Node) -> Unit | None:
    """Return the unit of a letter of algebra, or of its square or cube, read as a unit: ``m``, ``m^2``."""
    letter, power = (node.args[0], node.args[1]) if node.op == "^" else (node, None)
    if letter.op != "sym" or letter.name not in _SPACED_LETTERS or (power and power.value not in (2, 3)):
        return None
    return find_unit(letter.name + (f"^{power.value}" if power else ""))


def split_unit(text: str) -> Quantity | None:
    """Split the number from its unit. None if the words after the number change or deny it."""
    if not _HAS_UNIT.search(text):
        return Quantity(text)
    text, money = _without_money(text)
    if not _HAS_UNIT.search(text):
        return Quantity(text, money)
    summed = _in_words(text) or _summed(text)
    if summed:
        return Quantity("", money or summed.unit, summed.tree) if money else summed
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed and _PLAIN.fullmatch(bracketed.group(1)):
        text = f"{bracketed.group(1)} {bracketed.group(2)}"
    plain = _PLAIN.match(text)
    if plain:
        return _after_plain(text, plain.end(), money)
    return _defined(text) or _after_expression(text)


def _defined(text: str) -> Quantity | None:
    """Split the unit from the value of ``x = 5 m``."""
    name, equals, value = text.rpartition("=")
    plain = _PLAIN.match(value.strip()) if equals and name.strip() and name.rstrip()[-1] not in "<>!" else None
    found = _after_plain(value.strip(), plain.end(), None) if plain else None
    return replace(found, text=f"{name}={found.text}") if found and found.unit else None


def _without_money(text: str) -> tuple[str, Unit | None]:
    r"""Drop a currency before the number, and one between the number and a scale: ``2\text{dollar} million``."""
    match = _MONEY_BEFORE.match(text)
    if match:
        unit = find_unit({"US": "USD"}.get(match.group(1) or "USD", (match.group(1) or "USD").rstrip(".")))
        text = text[match.end() :]
        after = _PLAIN.match(text)
        return _scaled_short(text, after.end(), unit) if after else (text, unit)
    match = _MONEY.search(text)
    if not match:
        return text, None
    unit, before, after_money = find_unit(match.group(1)), text[: match.start()], text[match.end() :]
    if find_unit(f"{match.group(1)} {after_money}"):
        return text, None
    return _scaled_short(f"{before} {after_money}", len(before), unit)


def _scaled_short(text: str, end: int, unit: Unit | None) -> tuple[str, Unit | None]:
    """Multiply an amount of money by its scale: $15k."""
    scale = _SHORT_SCALES.get(text[end:].strip())
    number = text[:end].replace(",", "")
    if scale is None or "/" in number or "\\" in number:
        return text, unit
    value = Fraction(number) * scale
    return f"{value.numerator}/{value.denominator}" if value.denominator > 1 else str(value), unit


def _in_words(text: str) -> Quantity | None:
    """Return the quantity of a number in words: "3 million people", "五公斤"."""
    spoken = _TEXT.sub(r" \1 ", text).strip()
    if _HAN.search(spoken):
        found = None if spoken.isascii() else read_han_number(spoken)
        return Quantity("", found[1], Node("num", value=found[0])) if found else None
    if "\\" in spoken or "=" in spoken:
        return None
    read = read_spoken(spoken)
    if read is None:
        return None
    value, rest = read
    if not rest:
        return Quantity("", None, Node("num", value=value))
    unit = read_phrase(rest)
    name = not spoken[0].isdigit() and unit and not unit.measure and rest != rest.casefold()
    return Quantity("", unit, Node("num", value=value)) if unit and not name else None


def _summed(text: str) -> Quantity | None:
    found = read_sum(text)
    return Quantity("", found[1], found[0]) if found else None


def _after_plain(text: str, end: int, money: Unit | None) -> Quantity | None:
    """Read what follows a plain number: a unit, a counted noun, words that change it, or algebra."""
    rest = text[end:]
    amount, tail = text[:end].strip(), rest.strip()
    if not tail:
        return Quantity(amount, money)
    program = _PROGRAM.match(text)
    if program and program.end() > end:
        amount, tail = rf"{program.group(1)}\times 10^{{{program.group(2)}}}", text[program.end() :].strip()
    unit = find_unit(tail)
    if unit:
        spaced = rest[:1].isspace()
        letters = _could_be_letters(tail)
        if not letters or _letters_allowed(tail, spaced, len(amount)):
            return Quantity(amount, unit, letters=letters)
        return Quantity(text)
    if _HAN.match(tail) and not tail.isascii():
        unit = read_han(tail)
        return Quantity(amount, unit) if unit else None
    if not rest[:1].isspace() and not tail.startswith("\\text") and len(tail) < 3:
        return Quantity(text)
    return _phrased(text, amount, tail)


_WORDS = re.compile(r"(?:\\text\s*\{[^{}]*\}|[A-Za-z'$%./\s-]|\^\{?\d\}?)+")


def _phrased(text: str, amount: str, tail: str) -> Quantity | None:
    plain = _TEXT.sub(r" \1 ", tail).strip()
    words = re.findall(r"[A-Za-z']+", plain)
    if not _WORDS.fullmatch(tail) or not any(len(word) > 2 for word in words) or words[0] in _FUNCTIONS:
        return _after_expression(text)
    unit = read_phrase(tail)
    return Quantity(amount, unit) if unit else None


_FUNCTIONS = frozenset(["sqrt", "sin", "cos", "tan", "log", "ln", "pi", "theta", "alpha", "beta"])


def _could_be_letters(tail: str) -> bool:
    r"""Return whether a unit is written as letters that may be algebra: "m", "m/s", "mg"; not ``\text{m}``."""
    return (
        "\\text" not in tail
        and all(len(word) < 3 for word in re.findall(r"[A-Za-z]+", tail))
        and tail.isascii()
    )


def _letters_allowed(tail: str, spaced: bool, digits: int) -> bool:
    """Return whether letters after a plain number are read as a unit first."""
    words = re.findall(r"[A-Za-z]+", tail)
    if any(len(word) > 1 for word in words) or "/" in tail or "-" in tail or "%" in tail or not words:
        return True
    single = _BARE_LETTER.fullmatch(tail)
    if single:
        return (spaced and single.group(1) in _SPACED_LETTERS) or (
            digits > 1 and single.group(1) in _LETTER_UNITS
        )
    return spaced and (" ".join(words) in _LETTER_PRODUCTS or "\\cdot" in tail or "*" in tail)


def _after_expression(text: str) -> Quantity | None:
    r"""Split the unit of measure from the end of an expression: "3\sqrt{5} ft/s", "x = 5 cm"."""
    low = max(0, len(text) - _MAX_TAIL, *(text.rfind(c) + 1 for c in "=+<>,;|&:!"))
    starts = [match.start() for match in _START.finditer(text, low)]
    for start in starts[:_MAX_STARTS]:
        amount, tail = text[:start].rstrip(), text[start:].strip()
        if not amount or amount[-1] in "=+-<>(^_{\\" or amount.count("{") != amount.count("}"):
            continue
        found = _split_at(text, amount, tail, start > len(amount))
        if found:
            return found
    return _noun_in_text(text)


def _split_at(text: str, amount: str, tail: str, spaced: bool) -> Quantity | None:
    unit = find_unit(tail)
    if unit is None or amount.endswith(("\\cdot", "\\times", "/")):
        return None
    letters = _could_be_letters(tail)
    constant = not re.search(r"[A-Za-z]", _COMMANDS.sub("", _TEXT.sub("", amount)))
    single = re.fullmatch(r"[A-Za-z](?:\s*\^.*)?", tail)
    if single or (letters and not constant and not spaced) or tail == "in":
        return None
    number = re.search(r"[\d)}\]π]$", amount) or amount.endswith(("\\pi", "^{\\circ}"))
    return Quantity(amount, unit, letters=letters) if number else None


def _noun_in_text(text: str) -> Quantity | None:
    r"""Split a counted noun in ``\text{…}`` from the end: ``\frac{1}{2}\text{ of the cake}``."""
    start = text.rfind("\\text")
    amount, tail = text[:start].strip(), text[start:].rstrip(" .") if start > 0 else ""
    match = _TEXT.fullmatch(tail) if amount and amount.count("{") == amount.count("}") else None
    if not match:
        return Quantity(text)
    unit = read_phrase(match.group(1)) or (
        read_han(match.group(1)) if _HAN.match(match.group(1).strip()) else None
    )
    return Quantity(amount, unit) if unit else None
