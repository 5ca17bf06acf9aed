r"""Values of simple LaTeX formulas at given values of their letters, to show that two formulas differ.

Known are numbers, letters, ``+ - * / ^``, ``\frac``, ``\sqrt``, ``\pi``, brackets and a few functions.
Anything else has no value here, and then no attack is built on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

MAX_CHARS = 120
_TOKEN = re.compile(r"\\[a-zA-Z]+|\d+(?:\.\d+)?|[^\s]")
_TIMES = {"*", "\\cdot", "\\times", "×", "·"}
_OVER = {"/", "\\div", "÷"}
_BRACKETS = {"(": ")", "{": "}", "[": "]"}
_FRACTIONS = {"\\frac", "\\dfrac", "\\tfrac"}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "\\sin": math.sin, "\\cos": math.cos, "\\tan": math.tan, "\\ln": math.log, "\\exp": math.exp,
}  # fmt: skip
# Two points without symmetry: no letter has the value of another, of its opposite or of a small number.
POINTS = (0.7351, 1.3127)


class _NoValue(Exception):
    pass


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str, values: Mapping[str, float]) -> None:
        self.tokens = _TOKEN.findall(re.sub(r"\\left|\\right|\\[,;! ]|\\q?quad(?![a-z])", " ", text))
        self.values = values
        self.at = 0

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next
        self.at += 1
        return token

    def whole(self) -> float:
        value = self.sum()
        if self.next:
            raise _NoValue
        return value

    def sum(self) -> float:
        value = self.product()
        while self.next in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> float:
        value = self.signed()
        while True:
            if self.next in _TIMES:
                self.take()
                value *= self.signed()
            elif self.next in _OVER:
                self.take()
                value /= self.signed()
            elif self.starts_atom():
                value *= self.power()
            else:
                return value

    def starts_atom(self) -> bool:
        token = self.next
        known = token in _FRACTIONS or token in _FUNCTIONS or token in ("\\sqrt", "\\pi", "π")
        return known or token in ("(", "{") or token.isalnum()

    def signed(self) -> float:
        if self.next in ("-", "+"):
            return -self.signed() if self.take() == "-" else self.signed()
        return self.power()

    def power(self) -> float:
        base = self.atom()
        if self.next != "^":
            return base
        self.take()
        exponent = -self.atom() if self.next == "-" and self.take() else self.atom()
        value = base**exponent
        if isinstance(value, complex):
            raise _NoValue
        return float(value)

    def atom(self) -> float:
        token = self.take()
        if token in _BRACKETS:
            value = self.sum()
            if self.take() != _BRACKETS[token]:
                raise _NoValue
            return value
        if token in _FRACTIONS:
            return self.digit_or_atom() / self.digit_or_atom()
        if token == "\\sqrt":
            root = self.atom() if self.next == "[" else 2.0
            return math.pow(self.digit_or_atom(), 1 / root)
        if token in _FUNCTIONS:
            return _FUNCTIONS[token](self.argument())
        return self.name(token)

    def digit_or_atom(self) -> float:
        r"""Return an argument without braces, which is one digit: ``\frac94`` is 9/4."""
        token = self.next
        if token.isdecimal() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = list(token)
        return self.atom()

    def argument(self) -> float:
        value = self.power()
        while self.next not in _FUNCTIONS and self.starts_atom():
            value *= self.power()
        return value

    def name(self, token: str) -> float:
        if re.fullmatch(r"\d+(?:\.\d+)?", token):
            return float(token)
        if token in ("\\pi", "π"):
            return math.pi
        if token in self.values:
            return self.values[token]
        raise _NoValue


def letters(text: str) -> list[str]:
    """Return the single letters of a formula, without those of commands, sorted."""
    return sorted(set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", " ", text))))


def value_at(text: str, point: float) -> float | None:
    """Return the value of a formula where its letters are ``point``, ``1.7 * point``, …; None if unknown."""
    if len(text) > MAX_CHARS:
        return None
    values = {letter: point * 1.7**number for number, letter in enumerate(letters(text))}
    try:
        value = _Reader(text, values).whole()
    except (_NoValue, ArithmeticError, ValueError, RecursionError):
        return None
    return value if math.isfinite(value) else None


def differ(first: str, second: str) -> bool:
    """Return whether two formulas in the same letters are known to have different values."""
    if letters(first) != letters(second):
        return False
    for point in POINTS:
        a, b = value_at(first, point), value_at(second, point)
        if a is None or b is None or abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1.0):
            return False
    return True


def identity(left: str, right: str) -> bool:
    """Return whether an equation may hold everywhere: its sides do not differ at the points tried."""
    both = f"({left})-({right})"
    values = [value_at(both, point) for point in POINTS]
    return any(value is None or abs(value) < 1e-9 for value in values)
