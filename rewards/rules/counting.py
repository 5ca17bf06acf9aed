"""The rule "counting": how many were named."""

from __future__ import annotations

import re
from typing import Any

from rewards.math.bounds import Unreadable
from rewards.math.number_words import numbers_in
from rewards.registry import Answerable, rule
from rewards.rules.common import Count, Section, compared, graded
from rewards.verdict import Verdict

# Numbers that words leave open.
_VAGUE = re.compile(r"\b(?:dozens|hundreds|thousands|millions|half\s+a)\b", re.IGNORECASE)
_NONE = re.compile(r"\s*(?:there\s+(?:are|is)\s+)?(?:no|none|没有|无)\b", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.])[-+]?[0-9][0-9,]{0,12}(?:\.[0-9]{1,20})?(?![0-9A-Za-z])")


def _by_digits(text: str) -> list[int]:
    numbers = [float(found.replace(",", "")) for found in _DIGITS.findall(text)]
    if any(number < 0 or number != int(number) for number in numbers):
        raise Unreadable(f"{text[:60]!r} is not a number of things")
    return [int(number) for number in numbers]


def _by_words(text: str) -> list[int]:
    if _VAGUE.search(text):
        raise Unreadable(f"{text[:60]!r} does not say exactly how many")
    return numbers_in(text) or ([0] if _NONE.match(text) else [])


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
