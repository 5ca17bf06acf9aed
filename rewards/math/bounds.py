"""Bounds on the size of a text and of its numbers, checked before any expensive step.

The limits are generous for genuine answers and reject hostile ones: long texts, deep nesting, long numbers,
towers of powers, large factorials and binomials. They do not reject a short expression that is slow in sympy;
the worker pool (``rewards.workers.pool``) limits its time.
"""

from __future__ import annotations

MAX_CHARS = 2_000
MAX_DEPTH = 40
MAX_DIGITS = 400
MAX_NODES = 300
MAX_BITS = 8_000
MAX_FACTORIAL = 800
MAX_ITEMS = 60


class Unreadable(ValueError):
    """The text is not mathematics that this package can read; the message names the obstacle."""


class Refused(Unreadable):
    """The text may be mathematics, but exceeds the bounds."""


def check_length(text: str) -> None:
    """Raise ``Refused`` if ``text`` has more than ``MAX_CHARS`` characters."""
    if len(text) > MAX_CHARS:
        raise Refused(f"{len(text):,} characters, at most {MAX_CHARS:,} are read")


def check_power(base_bits: int, exponent: int) -> None:
    """Raise ``Refused`` if an integer of ``base_bits`` bits to this power has more than ``MAX_BITS`` bits."""
    if base_bits * abs(exponent) > MAX_BITS:
        raise Refused(f"a power of more than the {MAX_BITS:,} bits that are read")


def check_factorial(n: int) -> None:
    """Raise ``Refused`` if ``n`` is too large for a factorial or binomial."""
    if n > MAX_FACTORIAL:
        raise Refused(f"a factorial or binomial of more than {MAX_FACTORIAL}")
