"""Numbers with Chinese words: "负三", "三点五", "二分之一", "百分之五十", "3万元", "三个苹果"."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math.amounts.counted import read_han
from rewards.math.amounts.number_words import chinese_number
from rewards.math.amounts.unit_text import find_unit
from rewards.math.amounts.units import PERCENT, Unit

_HAN_DIGITS = "零〇一二两三四五六七八九"
_DIGIT = {char: i for i, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_NUMBER = rf"[{_HAN_DIGITS}十百千万亿]{{1,20}}"
_VALUE = rf"(?:{_NUMBER}|\d{{1,20}}(?:\.\d{{1,20}})?)"
_PERCENT = re.compile(rf"百分之({_VALUE})(?:点([{_HAN_DIGITS}]{{1,20}}))?")
_FRACTION = re.compile(rf"(?:({_VALUE})又)?({_VALUE})分之({_VALUE})")
_DECIMAL = re.compile(rf"({_NUMBER})点([{_HAN_DIGITS}]{{1,20}})")
_WHOLE = re.compile(rf"({_NUMBER})")
_SCALED = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*(万亿|百万|千万|十亿|百亿|千亿|十万|[千百]?[万亿]|[千百])")
_DIGITS = re.compile(r"\d{1,20}(?:\.\d{1,20})?")
_SCALES = {"百": 100, "千": 1000, "万": 10**4, "亿": 10**8, "十万": 10**5, "百万": 10**6, "千万": 10**7,
           "十亿": 10**9, "百亿": 10**10, "千亿": 10**11, "万亿": 10**12}  # fmt: skip
# Counters that may follow a number in words; other words may be names that begin with one (三角形, 一次函数).
_COUNTERS = frozenset(
    "个只颗名位本支条张棵辆头人次倍件块片朵瓶杯盒袋箱包根艘架座间层排行列队组班种类项道题段句字匹页岁步趟场"
    "届把盏户台家所粒滴双对套份"
)
_THINGS = frozenset("个只颗名位本支条张棵辆头件朵")


def _value(text: str) -> Fraction | None:
    if text[0].isdigit():
        return Fraction(text)
    whole = chinese_number(text)
    return None if whole is None else Fraction(whole)


def _decimals(text: str) -> Fraction:
    digits = "".join(str(_DIGIT[char]) for char in text)
    return Fraction(int(digits), 10 ** len(digits))


def _start(text: str) -> tuple[Fraction | None, int, Unit | None]:
    """Return the number at the start, the length of its text, and its unit if that is part of it."""
    if text.startswith("一半"):
        return Fraction(1, 2), 2, None
    if match := _PERCENT.match(text):
        value = _value(match.group(1))
        if value is not None and match.group(2):
            value += _decimals(match.group(2))
        return value, match.end(), PERCENT
    if match := _FRACTION.match(text):
        whole, below, above = (_value(part) if part else Fraction(0) for part in match.groups())
        value = None if None in (whole, below, above) or not below else (whole or 0) + (above or 0) / below
        return value, match.end(), None
    if match := _DECIMAL.match(text):
        value = _value(match.group(1))
        return None if value is None else value + _decimals(match.group(2)), match.end(), None
    if match := _SCALED.match(text):
        value, end = Fraction(match.group(1)) * _SCALES[match.group(2)], match.end()
        if (lower := _SCALED.match(text, end)) and _SCALES[lower.group(2)] < _SCALES[match.group(2)]:
            value, end = value + Fraction(lower.group(1)) * _SCALES[lower.group(2)], lower.end()
        return value, end, None
    if match := _DIGITS.match(text):
        return Fraction(match.group()), match.end(), None
    match = _WHOLE.match(text)
    return (_value(match.group(1)), match.end(), None) if match else (None, 0, None)


def _counted(rest: str, digits: bool) -> Unit | None:
    unit = read_han(rest)
    if unit is None or unit.measure or digits:
        return unit
    named = rest in _COUNTERS or (rest[0] in _THINGS and len(rest) <= 5)
    return unit if named else None


def read_han_number(text: str) -> tuple[Fraction, Unit | None] | None:
    """Return the number that a whole Chinese text states, with its unit; else None."""
    sign, rest = (-1, text[1:]) if text[:1] in "负-" else (1, text)
    digits = rest[:1].isdigit()
    named = _DIGITS.match(rest) if digits else None
    if named and (known := find_unit(rest[named.end() :])):
        return sign * Fraction(named.group()), known
    value, end, unit = _start(rest)
    if value is None:
        return None
    after = rest[end:].strip()
    if after and (unit := _counted(after, digits)) is None:
        return _longest(rest, sign)
    return sign * value, unit


def _longest(text: str, sign: int) -> tuple[Fraction, Unit | None] | None:
    """Return "三千克" as 3 kg: the last character of the number may be the first of the unit."""
    match = _WHOLE.match(text) or re.match(r"\d+(?:\.\d+)?", text)
    if not match:
        return None
    for end in (match.end() - 1, match.end()):
        unit = read_han(text[end:]) if 0 < end < len(text) else None
        value = _value(text[:end]) if unit and unit.measure else None
        if value is not None:
            return sign * value, unit
    return None
