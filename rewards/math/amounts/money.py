r"""Currency signs before a number, and short scales of money: "US\$5", "Rs. 500", "\$2 million", "\$15k"."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math.amounts.trailing_units import PLAIN
from rewards.math.amounts.unit_text import find_unit
from rewards.math.amounts.units import Unit

_BEFORE = re.compile(
    r"^\s*(?:(US|USD|EUR|GBP|CNY|RMB|JPY|INR|Rs\.?|[₹₩₽₱₪฿₫₦€£¥])\s*(?=\d)|\\\$\s*(?=\d))", re.IGNORECASE
)
# ``clean`` moves a dollar sign behind the number.
_BETWEEN = re.compile(r"(?<=\d)\\text\{(dollar|[¥€£])\}\s*(?=[A-Za-z万亿千百])")
_SHORT_SCALES = {"k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "b": 10**9, "B": 10**9, "bn": 10**9}


def without_money(text: str) -> tuple[str, Unit | None]:
    r"""Return the text without the currency before its number, and the currency.

    A currency between the number and its scale is dropped too: ``2\text{dollar} million``.
    """
    match = _BEFORE.match(text)
    if match:
        sign = (match.group(1) or "USD").rstrip(".")
        text = text[match.end() :]
        after = PLAIN.match(text)
        unit = find_unit("USD" if sign.upper() == "US" else "Rs" if sign.lower() == "rs" else sign.upper())
        return _scaled(text, after.end(), unit) if after else (text, unit)
    match = _BETWEEN.search(text)
    if not match:
        return text, None
    before, rest = text[: match.start()], text[match.end() :]
    if rest not in _SHORT_SCALES and find_unit(f"{match.group(1)} {rest}"):
        return text, None  # dollars per hour
    return _scaled(f"{before} {rest}", len(before), find_unit(match.group(1)))


def _scaled(text: str, end: int, unit: Unit | None) -> tuple[str, Unit | None]:
    """Multiply the number, which ends at ``end``, by the short scale after it."""
    scale = _SHORT_SCALES.get(text[end:].strip())
    digits = text[:end].replace(",", "").strip()
    if scale is None or not re.fullmatch(r"\d{1,40}(?:\.\d{0,40})?", digits):
        return text, unit
    value = Fraction(digits) * scale
    return f"{value.numerator}/{value.denominator}" if value.denominator > 1 else str(value), unit
