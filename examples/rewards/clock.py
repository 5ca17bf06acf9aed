"""Rule for times of day: "3:05", "15:05", "3:05 p.m.", "3 o'clock", "noon", within a tolerance.

    mm-cpgd rewards test examples/rewards/clock.py:clock examples/rewards/clock_cases.jsonl

The whole answer must be one time: a text with two times, a "not" or a "before" is no time and scores 0.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from rewards import Status, Verdict, extract_answer

DAY = 24 * 60
LONGEST = 80
_LATEX = re.compile(r"\\text|\\mathrm|\\[,;:! ]|[{}$~]")
# Words before a time that change nothing about it.
_BEFORE = re.compile(
    r"(?:it|it's|the|time|clock|watch|answer|is|now|shows|reads|says|at|about|around|approximately|exactly)\b:?"
)
_PARTS = {"in the morning": "am", "in the afternoon": "pm", "in the evening": "pm"}
_NAMED = {"noon": "12:00 pm", "midday": "12:00 pm", "midnight": "12:00 am"}
_TIME = re.compile(r"(\d{1,2})(?:\s?[:h]\s?(\d\d)(?:\s?:\s?(\d\d))?)?\s?(o'clock)?\s?(?:([ap])\.?\s?m\.?)?")


def clock(completion: str, example: Any, tolerance: float = 0.0, hours: Literal[12, 24] = 12) -> Verdict:
    """1 if the answer is the gold time of day, within ``tolerance`` minutes, else 0.

    Args:
        completion: the model's text.
        example: holds the gold time.
        tolerance: allowed difference in minutes, also across midnight.
        hours: what a time such as 3:05 without a.m. or p.m. is: 12, in either half of the day, as on a dial;
            24, in the first half.
    """
    gold = readings(example.answer, hours)
    if not gold:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, f"{example.answer!r} is not one time of day")
    answer = extract_answer(completion)
    if answer is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    found = readings(answer, hours)
    if not found:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"{answer[:LONGEST]!r} is not one time of day")
    off = min(_difference(a, b) for a in found for b in gold)
    reason = f"{off:g} minutes from {example.answer}, {tolerance:g} allowed"
    right = off <= tolerance
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


def readings(text: str, hours: int) -> frozenset[float]:
    """Return the minutes since midnight that a text can mean; empty if it is not one valid time."""
    match = _TIME.fullmatch(_bare(text))
    if not match or not (match[2] or match[4] or match[5]):  # a lone number is no time
        return frozenset()
    hour, minute, second = (int(group or 0) for group in match.group(1, 2, 3))
    if hour > 24 or minute > 59 or second > 59 or (hour == 24 and (minute or second)):
        return frozenset()
    return frozenset(60 * h + minute + second / 60 for h in _hours(hour, match[5], hours))


def _bare(text: str) -> str:
    """Return the text in lower case without LaTeX and harmless words, and "noon" as a time."""
    if len(text) > LONGEST:
        return ""
    text = " ".join(_LATEX.sub(" ", text).lower().replace("’", "'").split()).rstrip(" ,;!")
    while match := _BEFORE.match(text):
        text = text[match.end() :].lstrip()
    for words, mark in _PARTS.items():
        text = text.replace(words, mark)
    text = _NAMED.get(text.rstrip("."), text)
    return text.removesuffix(".") if not text.endswith("m.") else text


def _hours(hour: int, half: str | None, hours: int) -> tuple[int, ...]:
    """Return the hours of the day that a written hour can mean; none if it contradicts its half."""
    if half == "a":
        return (hour % 12,) if hour <= 12 else ()
    if half == "p":
        return (hour % 12 + 12,) if hour >= 1 and hour != 24 else ()
    if hours == 24 or not 1 <= hour <= 12:
        return (hour % 24,)
    return hour % 12, hour % 12 + 12


def _difference(a: float, b: float) -> float:
    return min((a - b) % DAY, (b - a) % DAY)
