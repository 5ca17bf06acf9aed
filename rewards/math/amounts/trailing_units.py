r"""The unit at the end of a number or an expression: "5 m/s^2", "3\sqrt{5} ft", "19 peppermint candies"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.math.amounts.counted import read_han, read_phrase
from rewards.math.amounts.unit_text import find_unit
from rewards.math.amounts.units import Unit
from rewards.math.tokens import FUNCTIONS
from rewards.math.tree import Node

_MAX_TAIL, _MAX_STARTS = 80, 8
# A number without symbols: 5, -1,234.5, 3/4, 1 1/2, 6.02 × 10^{23}.
_FRACTION = r"\\frac\s*(?:\{\d+\}\s*\{\d+\}|\d\d)"
PLAIN = re.compile(
    rf"[-+]?(?:(?:\d[\d,]*(?:\.\d*)?|\.\d+)"
    rf"(?:\s*{_FRACTION}|\s*/\s*\d+|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*-?\d+\s*\}}|\d))?|{_FRACTION})"
)
_HAN = re.compile(r"\s*[\u4e00-\u9fff]")
_TEXT = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_START = re.compile(
    r"\\(?:text\s*\{|frac|mu(?![a-z])|Omega|ohm|min|sec)|(?<![A-Za-z\\])[A-Za-z]|[°%‰€£¥Ω\u4e00-\u9fff]"
)
_PROGRAM = re.compile(r"([-+]?\d{1,20}(?:\.\d{0,20})?)[eE]([-+]?\d{1,3})")
_COMMANDS = re.compile(r"\\(?!text)[a-zA-Z]+")
_WORDS = re.compile(r"(?:\\text\s*\{[^{}]*\}|[A-Za-z'$%./\s-]|\^\{?\d\}?)+")
_NO_NOUNS = FUNCTIONS | {"pi", "theta", "alpha", "beta"}
# The letters that are units after a number; any other is a letter of algebra.
_LETTER_UNITS = frozenset("mghsLNJWVK")
SPACED_LETTERS = _LETTER_UNITS | frozenset("ACFTHSMBtlΩ")
_AFTER_ROOTS = frozenset("mNJWVLΩ")
_LETTER_PRODUCTS = frozenset(["N m", "N s", "J s", "A h", "W h", "V s", "A s", "C m", "T m"])
_BARE_LETTER = re.compile(r"([A-Za-zΩ])\s*(?:\^\s*\{?\s*[23]\s*\}?)?")


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


def after_plain(text: str, end: int, money: Unit | None) -> Quantity | None:
    """Read what follows a plain number, which ends at ``end``: a unit, a counted noun or algebra.

    None if the words after the number change or deny it. ``money`` is the currency before the number.
    """
    rest = text[end:]
    amount, tail = text[:end].strip(), rest.strip()
    if not tail:
        return Quantity(amount, money)
    program = _PROGRAM.match(text)
    if program and program.end() > end:
        amount, rest = rf"{program.group(1)}\times 10^{{{program.group(2)}}}", text[program.end() :]
        tail = rest.strip()
    unit = find_unit(tail)
    if unit:
        letters = _could_be_letters(tail)
        allowed = not letters or _letters_allowed(tail, rest[:1].isspace(), len(amount))
        return Quantity(amount, unit, letters=letters) if allowed else Quantity(text)
    if _HAN.match(tail):
        unit = read_han(tail)
        return Quantity(amount, unit) if unit else None
    if not rest[:1].isspace() and not tail.startswith("\\text") and len(tail) < 3:
        return Quantity(text)
    return _phrased(text, amount, tail)


def _phrased(text: str, amount: str, tail: str) -> Quantity | None:
    """Read the words after a plain number; what is not only words is an expression."""
    words = re.findall(r"[A-Za-z']+", _TEXT.sub(r" \1 ", tail))
    if not _WORDS.fullmatch(tail) or not any(len(word) > 2 for word in words) or words[0] in _NO_NOUNS:
        return after_expression(text)
    unit = read_phrase(tail)
    return Quantity(amount, unit) if unit else None


def _could_be_letters(tail: str) -> bool:
    r"""Return whether a unit is written as letters that may be algebra: "m/s", "mg", not ``\text{mg}``."""
    short = all(len(word) < 3 for word in re.findall(r"[A-Za-z]+", tail))
    return "\\text" not in tail and short and tail.isascii()


def _letters_allowed(tail: str, spaced: bool, digits: int) -> bool:
    """Return whether letters after a plain number are read as a unit first."""
    words = re.findall(r"[A-Za-z]+", tail)
    if any(len(word) > 1 for word in words) or any(sign in tail for sign in "/-%") or not words:
        return True
    single = _BARE_LETTER.fullmatch(tail)
    if single:
        letter = single.group(1)
        return (spaced and letter in SPACED_LETTERS) or (digits > 1 and letter in _LETTER_UNITS)
    if tail in ("m2", "m3"):
        return True
    return spaced and (" ".join(words) in _LETTER_PRODUCTS or "\\cdot" in tail or "*" in tail)


def after_expression(text: str) -> Quantity | None:
    """Split the unit of measure or a counted noun from the end of an expression."""
    low = max(0, len(text) - _MAX_TAIL, *(text.rfind(c) + 1 for c in "=+<>,;|&:!"))
    starts = [match.start() for match in _START.finditer(text, low)]
    for start in starts[:_MAX_STARTS]:
        amount, tail = text[:start].rstrip(), text[start:].strip()
        if not amount or amount[-1] in "=+-<>(^_{\\" or amount.count("{") != amount.count("}"):
            continue
        found = _split_at(amount, tail, start > len(amount))
        if found:
            return found
    return _noun_in_text(text)


def _split_at(amount: str, tail: str, spaced: bool) -> Quantity | None:
    unit = find_unit(tail)
    if unit is None or amount.endswith(("\\cdot", "\\times", "/")) or tail == "in":
        return None
    letters = _could_be_letters(tail)
    constant = not re.search(r"[A-Za-z]", _COMMANDS.sub("", _TEXT.sub("", amount)))
    single = _BARE_LETTER.fullmatch(tail)
    if single and not (spaced and constant and single.group(1) in _AFTER_ROOTS and re.search(r"\d", amount)):
        return None
    number = re.search(r"[\d)}\]π]$|\\pi$", amount)
    letter = spaced and re.search(r"(?<![A-Za-z\\])[A-Za-z]{1,2}$", amount)  # 2x cm
    if not (number or letter or amount.endswith("^{\\circ}")):
        return None
    return Quantity(amount, unit, letters=letters) if constant or spaced or not letters else None


def _noun_in_text(text: str) -> Quantity | None:
    r"""Split a counted noun in ``\text{…}`` from the end: ``\frac{1}{2}\text{ of the cake}``."""
    start = text.rfind("\\text")
    amount, tail = text[:start].strip(), text[start:].rstrip(" .") if start > 0 else ""
    match = _TEXT.fullmatch(tail) if amount and amount.count("{") == amount.count("}") else None
    if not match:
        return Quantity(text)
    words = match.group(1)
    unit = read_han(words.strip()) if _HAN.match(words) else read_phrase(words)
    return Quantity(amount, unit) if unit else None
