"""Rule for dates: "2020-05-05", "5 May 2020", "Tuesday, May 5th, 2020", "5/6/2020" by an option.

    mm-cpgd rewards test examples/rewards/date.py:date examples/rewards/date_cases.jsonl

The whole answer must be one date that exists. A weekday in it must be the date's own.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal

from rewards import Status, Verdict, extract_answer

Order = Literal["refused", "day first", "month first"]
LONGEST = 80
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_LATEX = re.compile(r"\\text|\\mathrm|\\[,;:! ]|[{}$~]")
# Words before a date that change nothing about it.
_BEFORE = re.compile(r"(?:it|was|is|the|date|answer|on)\b:?\s*")
_WEEKDAY = re.compile(r"([a-z]{3,9})\.?,?\s+(?=[a-z]{0,9}\.?\s?\d)")
_YEAR_FIRST = re.compile(r"(\d{4})(?:\s?年\s?|([-/.]))(\d{1,2})(?:\s?月\s?|\2)(\d{1,2})(?:\s?日)?")
_DAY_MONTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?(?:\s+of)?[\s-]+([a-z]{3,9})\.?,?[\s-]+(\d{4})")
_MONTH_DAY = re.compile(r"([a-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})")
_NUMBERS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")


def date(completion: str, example: Any, order: Order = "refused") -> Verdict:
    """1 if the answer is the gold date, else 0.

    Args:
        completion: the model's text.
        example: holds the gold date.
        order: how 5/6/2020 is read; "refused" scores such an answer 0, and gives no score for such a gold
            date. Dates that have one reading, 13/6/2020 and 5/5/2020, are always read.
    """
    gold = read_date(example.answer, order)
    if gold is None:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, f"{example.answer!r} is not one unambiguous date")
    answer = extract_answer(completion)
    if answer is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    found = read_date(answer, order)
    if found is None:
        reason = f"{answer[:LONGEST]!r} is not one unambiguous date"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    right = found == gold
    relation = "is" if right else "is not"
    return Verdict(
        float(right), Status.CORRECT if right else Status.WRONG, answer, f"{found} {relation} {gold}"
    )


def read_date(text: str, order: Order) -> datetime.date | None:
    """Return the date that a text states; None for any other text, and for a date that does not exist."""
    text = _bare(text)
    weekday = _WEEKDAY.match(text)
    day = _index(WEEKDAYS, weekday[1]) if weekday else None
    if weekday and day is not None:
        text = text[weekday.end() :]
    possible = {found for found in _possible_dates(text, order) if day is None or found.weekday() == day}
    return possible.pop() if len(possible) == 1 else None


def _bare(text: str) -> str:
    if len(text) > LONGEST:
        return ""
    text = " ".join(_LATEX.sub(" ", text).lower().split()).strip(" .,;!")
    while match := _BEFORE.match(text):
        text = text[match.end() :]
    return text


def _possible_dates(text: str, order: Order) -> set[datetime.date]:
    """Return the dates that a text without a weekday can mean."""
    if match := _YEAR_FIRST.fullmatch(text):
        written = [(match[1], match[3], match[4])]
    elif match := _DAY_MONTH.fullmatch(text):
        written = [(match[3], _month(match[2]), match[1])]
    elif match := _MONTH_DAY.fullmatch(text):
        written = [(match[3], _month(match[1]), match[2])]
    elif match := _NUMBERS.fullmatch(text):
        day_first, month_first = (match[4], match[3], match[1]), (match[4], match[1], match[3])
        written = {"day first": [day_first], "month first": [month_first]}.get(
            order, [day_first, month_first]
        )
    else:
        written = []
    return {found for parts in written if (found := _valid(*map(int, parts)))}


def _month(name: str) -> int:
    found = _index(MONTHS, "sep" if name == "sept" else name)
    return 0 if found is None else found + 1


def _index(names: tuple[str, ...], word: str) -> int | None:
    """Return the place of a name, whole or as its first three letters."""
    return next((i for i, name in enumerate(names) if word in (name, name[:3])), None)


def _valid(year: int, month: int, day: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day)
    except ValueError:  # 30 February, month 0
        return None
