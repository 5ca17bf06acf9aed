"""What a text may cost before anything expensive sees it.

The numbers are generous for answers that people write and small for answers that are meant to hurt. They stop
long texts, deep nesting, long numbers, towers of powers, huge factorials and binomials; they do not stop a
short expression that sympy happens to find hard. For that there is the worker pool
(``rewards.workers.pool``).
"""

from __future__ import annotations

MAX_CHARS = 2_000
MAX_DEPTH = 40
MAX_DIGITS = 400
MAX_NODES = 300
MAX_BITS = 8_000
MAX_FACTORIAL = 800
MAX_PARTS = 60


class Unreadable(ValueError):
    """The text is not mathematics that this package reads; the message says where it stopped."""


class Refused(Unreadable):
    """The text may be mathematics, but reading it would cost more than the bounds allow."""


def check_length(text: str) -> None:
    """Raise ``Refused`` if ``text`` is longer than an answer can sensibly be."""
    if len(text) > MAX_CHARS:
        raise Refused(f"{len(text):,} characters, at most {MAX_CHARS:,} are read")


def check_power(base_bits: int, exponent: int) -> None:
    """Raise ``Refused`` if an integer of ``base_bits`` bits to this power would not fit into ``MAX_BITS``."""
    if base_bits * abs(exponent) > MAX_BITS:
        raise Refused(f"a power of more than the {MAX_BITS:,} bits that are read")


def check_factorial(n: int) -> None:
    """Raise ``Refused`` if a factorial or binomial of ``n`` is too large."""
    if n > MAX_FACTORIAL:
        raise Refused(f"a factorial or binomial of more than {MAX_FACTORIAL}")
