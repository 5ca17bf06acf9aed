"""Whole numbers in English and Chinese words: "one hundred and five", "三十二"."""

from __future__ import annotations

import re

_ONES_LIST = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_ONES = _ONES_LIST.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: i for i, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_GROUPS = {"thousand": 1000, "million": 10**6}
_SMALL = rf"(?:(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(_ONES[::-1])})\b"
_BELOW = rf"(?:(?:(?:{_SMALL}|a)\s)?hundred\b(?:\s(?:and\s)?{_SMALL})?|{_SMALL}\sdozen\b|{_SMALL}|dozen\b)"
_GROUP_OF = r"(?:,?\s(?:and\s)?)"
_ENGLISH = re.compile(
    rf"\b(?:(?:(?:{_BELOW}|a)\s)?million\b(?:{_GROUP_OF}{_BELOW}\sthousand\b)?(?:{_GROUP_OF}{_BELOW})?"
    rf"|(?:(?:{_BELOW}|a)\s)?thousand\b(?:{_GROUP_OF}{_BELOW})?|{_BELOW})"
)
_DIGITS = {char: i for i, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "亿": 10**8}
_CHINESE = re.compile(rf"[{''.join([*_DIGITS, *_UNITS, *_MYRIADS])}]{{1,20}}")


def _english(words: str) -> int:
    """Return the value of a match of ``_ENGLISH``."""
    total, current = 0, 0
    for word in re.findall(r"[a-z]+", words):
        if word in _GROUPS:
            total, current = total + (current or 1) * _GROUPS[word], 0
        elif word in ("hundred", "dozen"):
            current = (current or 1) * (100 if word == "hundred" else 12)
        else:
            current += _VALUES.get(word, 1 if word == "a" else 0)
    return total + current


def _below_myriad(text: str) -> int | None:
    """Return a number up to 9999 (一百零五), or None. 一百二 is ambiguous, 120 or 102, hence None."""
    total, digit, last, zero = 0, None, 10_000, False
    for char in text:
        if char in _UNITS:
            if _UNITS[char] >= last or (digit is None and (char != "十" or total)) or digit == 0:
                return None
            total, last, digit, zero = total + (digit or 1) * _UNITS[char], _UNITS[char], None, False
        elif digit is not None:
            return None
        elif _DIGITS[char] == 0 and total:
            zero = True
        else:
            digit = _DIGITS[char]
    return None if digit is not None and last in (100, 1000) and not zero else total + (digit or 0)


def chinese_number(text: str) -> int | None:
    """Return the whole number that Chinese characters name, or None."""
    total = 0
    for myriad in ("亿", "万"):
        before, found, rest = text.partition(myriad)
        if found:
            count = _below_myriad(before) if before and not set(before) & set(_MYRIADS) else None
            if not count:
                return None
            total, text = total + count * _MYRIADS[myriad], rest
    if not text:
        return total
    rest_value = (
        None if set(text) & set(_MYRIADS) else _below_myriad(text.removeprefix("零") if total else text)
    )
    return None if rest_value is None else total + rest_value


def numbers_in(text: str) -> list[int]:
    """Return every whole number that a text names in words, in order."""
    english = [_english(match.group()) for match in _ENGLISH.finditer(text.casefold())]
    return english or [n for found in _CHINESE.findall(text) if (n := chinese_number(found)) is not None]
