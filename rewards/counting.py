"""The rule "counting": how many were named."""

from __future__ import annotations

import re
from typing import Any

from rewards.bounds import Unreadable
from rewards.limits import Count
from rewards.registry import Answerable, rule
from rewards.sides import Section, compared, graded
from rewards.verdict import Verdict

_COUNT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_ONES = _COUNT_WORDS.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ENGLISH = {word: i for i, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_WORD = re.compile(rf"\b({'|'.join(_TENS)})[\s-]({'|'.join(_ONES[1:10])})\b|\b({'|'.join(_ENGLISH)})\b")
_CHINESE = {sign: i for i, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SIGNS = re.compile(r"[〇零一二两三四五六七八九十]{1,4}")
_LARGE = re.compile(r"\b(?:dozen|hundred|thousand|million)s?\b|[百千万亿]", re.IGNORECASE)
_NONE = re.compile(r"\s*(?:there\s+(?:are|is)\s+)?(?:no|none|没有|无)\b", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.])[-+]?[0-9][0-9,]{0,12}(?:\.[0-9]{1,20})?(?![0-9A-Za-z])")


def _chinese(signs: str) -> int | None:
    """Up to 99: 十二 is 12, 三十 is 30."""
    before, ten, after = signs.partition("十")
    parts = [_CHINESE.get(part) if part else None for part in (before, after)]
    if not ten:
        return parts[0]
    if any(part and value is None for part, value in zip((before, after), parts, strict=True)):
        return None
    return (1 if parts[0] is None else parts[0]) * 10 + (parts[1] or 0)


def _by_digits(text: str) -> list[int]:
    numbers = [float(found.replace(",", "")) for found in _DIGITS.findall(text)]
    if any(number < 0 or number != int(number) for number in numbers):
        raise Unreadable(f"{text[:60]!r} is not a number of things")
    return [int(number) for number in numbers]


def _by_words(text: str) -> list[int]:
    if _LARGE.search(text):
        raise Unreadable(f"{text[:60]!r} is a number above 99 in words, which is read in digits only")
    spelled = [
        _ENGLISH[word] if word else _ENGLISH[tens] + _ENGLISH[ones]
        for tens, ones, word in _WORD.findall(text.casefold())
    ]
    if spelled:
        return spelled
    chinese = [count for signs in _SIGNS.findall(text) if (count := _chinese(signs)) is not None]
    return chinese or ([0] if _NONE.match(text) else [])


def read_count(value: Any) -> int:
    """Return how many a text says there are, in digits or in English or Chinese words.

    What stands after the last "=" counts. Raises ``Unreadable`` if it names no number or several.
    """
    text = str(value).rpartition("=")[2]
    found = set(_by_digits(text) or _by_words(text))
    if len(found) != 1:
        named = f"names {len(found)} numbers" if found else "names no number"
        raise Unreadable(f"{text.strip()[:60]!r} {named}")
    return found.pop()


@rule("counting")
def counting(
    completion: str, example: Answerable, read: Section = "answer", gold: str = "answer", near: Count = 0
) -> Verdict:
    """1 if the number that the answer names is the gold number; near misses in steps down to 0.

    Args:
        completion: the model's text.
        example: holds the gold number.
        read: the part of the completion to read.
        gold: "answer", or the example's meta column that holds the gold number.
        near: the largest miss that still counts: d off gives 1 − d / (near + 1).
    """

    def compare(text: str, wanted: int) -> Verdict:
        count = read_count(text)
        grade = 1 - min(abs(count - wanted), near + 1) / (near + 1)
        return graded(grade, text, f"{count} counted, {wanted} there are")

    return compared(completion, example, read, gold, read_count, compare)
