"""Numbers with words: "3 million", "two and a half", "2 thirds", "5 plus two", "3 point five", "2 squared".

Words that multiply, divide or add are arithmetic. Where they are not clear ("2 factorial", "5 six"), nothing
is read: the text is then words and equals no number.
"""

from __future__ import annotations

import re
from fractions import Fraction

_ONES_LIST = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_ONES = _ONES_LIST.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
VALUES = {w: i for i, w in enumerate(_ONES)} | {w: 20 + 10 * i for i, w in enumerate(_TENS)}
SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "quadrillion": 10**15, "mln": 10**6, "lakh": 10**5, "crore": 10**7,
}  # fmt: skip
_GROUPED = {"dozen": 12, "score": 20}
_ORDINALS_LIST = (
    "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_ORDINALS = _ORDINALS_LIST.split()
PARTS = {w: i + 3 for i, w in enumerate(_ORDINALS)} | {
    "half": 2, "halve": 2, "halves": 2, "quarter": 4, "thirtieth": 30, "fortieth": 40, "fiftieth": 50,
    "hundredth": 100, "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
_POWERS = {"squared": 2, "cubed": 3}
_TIMES: dict[tuple[str, ...], str] = {
    ("times",): "*",
    ("multiplied", "by"): "*",
    ("over",): "/",
    ("divided", "by"): "/",
}
_TERMS: dict[tuple[str, ...], str] = {("plus",): "+", ("minus",): "-"}
# The words after a number in digits that make it more than that number.
AFTER_DIGITS = frozenset(
    [*SCALES, *_GROUPED, *PARTS, *(f"{w}s" for w in PARTS), *_POWERS, "point", "and"]
    + [phrase[0] for phrase in (*_TIMES, *_TERMS)]
)
_WORD = re.compile(r"\d[\d,]*(?:\.\d+)?|[A-Za-z]+|[^\s-]")
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?")
_MAX_CHARS, _MAX_SIZE = 160, 10**30
_LIMIT = 60


class _Unclear(Exception):
    """The words are no clear arithmetic."""


class _Reader:
    """Reader of the arithmetic at the start of a list of words."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.position = words, 0

    def peek(self, ahead: int = 0) -> str:
        """Return the word ``ahead`` positions ahead; empty past the end."""
        position = self.position + ahead
        return self.words[position] if position < len(self.words) else ""

    def accept(self, table: dict[tuple[str, ...], str]) -> str:
        """Consume one of the phrases; return its operator, or nothing."""
        for phrase, operator in table.items():
            end = self.position + len(phrase)
            if tuple(self.words[self.position : end]) == phrase and self._is_number(len(phrase)):
                self.position = end
                return operator
        return ""

    def _is_number(self, ahead: int) -> bool:
        word = self.peek(ahead)
        return bool(_DIGITS.fullmatch(word)) or word in VALUES or word in ("half", "minus", "negative", "a")

    def sum(self) -> Fraction:
        """Read terms joined by plus and minus."""
        value = self._product()
        while operator := self.accept(_TERMS):
            value += self._product() * (1 if operator == "+" else -1)
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while operator := self.accept(_TIMES):
            other = self._factor()
            if operator == "/" and not other:
                raise _Unclear
            value = value * other if operator == "*" else value / other
        return value

    def _factor(self) -> Fraction:
        if self.peek() in ("minus", "negative"):
            self.position += 1
            value = self._factor()
            # "negative -1" and "minus two squared" say two things.
            if value < 0 or self.words[self.position - 1] in _POWERS:
                raise _Unclear
            return -value
        value = self._part()
        if self.peek() in _POWERS:
            if value < 0:
                raise _Unclear
            value **= _POWERS[self.peek()]
            self.position += 1
        return value

    def _part(self) -> Fraction:
        """Read a number, a fraction ("two thirds", "half a") or both ("two and a half")."""
        if self.peek() == "half" or (self.peek() in ("a", "an") and self._denominator(1)):
            return self._half()
        value = self._number()
        denominator = self._denominator(0)
        if denominator:
            if (value == 1) != (not self.peek().endswith("s")) and self.peek() != "half":
                raise _Unclear
            self.position += 1
            return value / denominator
        if self.peek() == "and":
            return value + self._and_part()
        return value

    def _half(self) -> Fraction:
        self.position += self.peek() in ("a", "an")
        value = Fraction(1, self._denominator(0))
        self.position += 1
        start = self.position
        self.position += self.peek() == "a"  # half a million
        scale = self._scale(_MAX_SIZE)
        self.position = start if scale == 1 else self.position
        return value * scale

    def _denominator(self, ahead: int) -> int:
        word = self.peek(ahead)
        return PARTS.get(word) or PARTS.get(word.removesuffix("s"), 0)

    def _and_part(self) -> Fraction:
        """Return the fraction of "… and a half", "… and two thirds"; 0 if no fraction follows."""
        count = 1 if self.peek(1) in ("a", "an", "one") else VALUES.get(self.peek(1), 0)
        denominator = self._denominator(2)
        if not (count and denominator and count < denominator):
            return Fraction(0)
        self.position += 3
        return Fraction(count, denominator)

    def _number(self) -> Fraction:
        """Read digits or number words, with their scales: "two hundred and five", "1.5 million"."""
        total, limit, start = Fraction(0), _MAX_SIZE, self.position
        while True:
            current = self._below_scale(first=self.position == start)
            if current is None:
                break
            current = self._decimals(current) if not total else current
            scale = self._scale(limit)
            total += current * scale
            if scale < 1000:
                break
            limit = scale
            if self.peek() == "and" and self._denominator(2) == 0 and self._is_number(1):
                self.position += 1
        if self.position == start:
            raise _Unclear
        return total

    def _scale(self, limit: int) -> int:
        scale = 1
        while self.peek() in SCALES and scale * SCALES[self.peek()] < limit:
            scale *= SCALES[self.peek()]
            self.position += 1
        if scale == 1 and self.peek() in _GROUPED:
            scale = _GROUPED[self.peek()]
            self.position += 1
        return scale

    def _below_scale(self, first: bool) -> Fraction | None:
        """Read digits, or words up to "nineteen hundred ninety-nine"; None if there is no number."""
        word = self.peek()
        if _DIGITS.fullmatch(word):
            self.position += 1
            return Fraction(word.replace(",", ""))
        if first and word in ("a", "an") and (self.peek(1) in SCALES or self.peek(1) in _GROUPED):
            self.position += 1
            return Fraction(1)
        if first and (word in SCALES or word in _GROUPED):
            return Fraction(1)
        value = self._below_hundred()
        if value is None or self.peek() != "hundred":
            return None if value is None else Fraction(value)
        self.position += 1
        after = self.peek() == "and" and self.peek(1) in VALUES and not self._denominator(2)
        self.position += after
        return Fraction(value * 100 + (self._below_hundred() or 0))

    def _below_hundred(self) -> int | None:
        value = VALUES.get(self.peek())
        if value is None:
            return None
        self.position += 1
        unit = VALUES.get(self.peek(), 0)
        if value >= 20 and 1 <= unit <= 9:
            self.position += 1
            return value + unit
        return value

    def _decimals(self, value: Fraction) -> Fraction:
        """Add the digits after "point"; digits in words only, one at a time."""
        if self.peek() != "point":
            return value
        digits, ahead = "", 1
        while (digit := VALUES.get(self.peek(ahead), 10)) < 10 or self.peek(ahead).isdigit():
            digits += str(digit) if digit < 10 else self.peek(ahead)
            ahead += 1
        if not digits or value.denominator != 1 or len(digits) > _LIMIT:
            return value
        self.position += ahead
        return value + Fraction(int(digits), 10 ** len(digits))


# Unclear: one more sign, or the square of a number with its sign.
_TWO_SIGNS = re.compile(r"(?:negative|minus)\s*-|-\s*\d[\d.,]*\s+(?:squared|cubed)", re.IGNORECASE)


def read_spoken(text: str) -> tuple[Fraction, str] | None:
    """Return the number that a text states in words at its start, and the text after it; else None.

    "three apples" is (3, "apples"), "5 plus two" (7, ""). A number in digits alone is none, nor is one whose
    words are not clear.
    """
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text)
    if len(rest) > _MAX_CHARS or _TWO_SIGNS.match(text):
        return None
    matches = list(_WORD.finditer(rest))
    words = [_singular(match.group().casefold()) for match in matches[:_LIMIT]]
    if not words or not _spoken(words):
        return None
    reader = _Reader(words)
    try:
        value = reader.sum()
    except _Unclear:
        return None
    if reader.position < 2 and _DIGITS.fullmatch(words[0]):
        return None
    after = rest[matches[reader.position].start() :] if reader.position < len(matches) else ""
    return sign * value, after


def _singular(word: str) -> str:
    """Return "million" for "millions"."""
    one = word.removesuffix("s")
    return one if one in SCALES or one == "dozen" else word


def _spoken(words: list[str]) -> bool:
    """Return whether the text starts with a number in words, or in digits that words follow."""
    if _DIGITS.fullmatch(words[0]):
        return len(words) > 1 and words[1] in AFTER_DIGITS
    first = words[0]
    return first in VALUES or first in SCALES or first in ("half", "dozen", "a", "an", "minus", "negative")
