"""Rules "numeric" (a number within a tolerance of the gold number) and "counting" (a number of things)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from rewards.example import ExampleLike
from rewards.math.amounts.number_words import numbers_in
from rewards.math.amounts.unit_text import find_unit
from rewards.math.amounts.units import Unit, convert, is_percent, units_conflict
from rewards.math.bounds import Unreadable
from rewards.math.numeric import evaluate
from rewards.math.read import AnswerItem, read_answer
from rewards.math.tree import Node, exact_value
from rewards.registry import rule
from rewards.rules.common import Count, NonNegative, Section, partial_credit, score_against_gold
from rewards.verdict import Verdict

_ABOUT = re.compile(
    r"^\s*(?:about|approximately|approx\.?|around|roughly|nearly|~|大约|约)\s*", re.IGNORECASE
)
# Programs write numbers as "1e5", which mathematics reads as one times e times five.
_PROGRAM = re.compile(r"\s*([-+]?[0-9]{1,20}(?:\.[0-9]{0,20})?)[eE]([-+]?[0-9]{1,2})\s*")
_ANY = re.compile(
    r"(?<![\w.,])([-+]?[0-9][0-9,]{0,20}(?:\.[0-9]{1,20})?)(?![\w,]*[0-9])\s{0,3}([A-Za-z°%]{0,20})"
)


def _value(tree: Node) -> Fraction | None:
    if tree.op == "rel" and tree.name == "=":
        return _value(tree.args[-1])
    value = exact_value(tree)
    if value is not None:
        return value
    computed = evaluate(tree, {})
    return Fraction(computed.z.real) if computed and abs(computed.z.imag) <= computed.error else None


def _only_number(text: str) -> tuple[Fraction, Unit | None]:
    """Return the only number in a text with other words, and the unit that follows it."""
    found = _ANY.findall(text)
    if len(found) != 1:
        raise Unreadable(f"{text[:60]!r} is not one number")
    digits, word = found[0]
    return Fraction(digits.replace(",", "")), find_unit(word) if word else None


def read_number(text: str, *, alone: bool = False) -> tuple[Fraction, Unit | None]:
    """Return the one number that a text states, and its unit.

    Raises ``Unreadable`` for none or several; with ``alone`` also for a number between other words.
    """
    text = _ABOUT.sub("", text)
    program = _PROGRAM.fullmatch(text)
    if program:
        return Fraction(program[1]) * Fraction(10) ** int(program[2]), None
    items = read_answer(text).items
    item = items[0] if len(items) == 1 else AnswerItem("")
    value = _value(item.tree) if item.tree else None
    if value is None and alone:
        raise Unreadable(f"{text[:60]!r} is not a number alone")
    return _only_number(text) if value is None else (value, item.unit)


def _possible_values(value: Fraction, unit: Unit | None, gold_unit: Unit | None) -> list[Fraction]:
    """Return the possible values in the gold number's unit: 50% is 50 and 0.5, as in the rule "accuracy"."""
    readings = convert(value, unit, gold_unit)
    if is_percent(unit) and gold_unit is None:
        readings.append(value / 100)
    if unit is None and is_percent(gold_unit):
        readings.append(value * 100)
    return readings


def _shown(value: Fraction) -> str:
    try:
        return f"{float(value):g}"
    except OverflowError:
        return "a number beyond floating point"


@rule("numeric")
def numeric(
    completion: str,
    example: ExampleLike,
    read: Section = "answer",
    gold: str = "answer",
    absolute: NonNegative = 0.0,
    relative: NonNegative = 0.0,
) -> Verdict:
    """1 if the answer is a number within the tolerance of the gold number, else 0; units convert.

    Args:
        completion: the model's text.
        example: holds the gold number.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold number.
        absolute: allowed absolute difference.
        relative: allowed difference as a share of the gold number; the larger of the two applies.
    """

    def parse_gold(value: Any) -> tuple[Fraction, Unit | None]:
        return read_number(str(value))

    def compare(text: str, wanted: tuple[Fraction, Unit | None]) -> Verdict:
        value, unit = read_number(text)
        if units_conflict(unit, wanted[1]):
            return partial_credit(0.0, text, "the unit measures something else than the gold answer's")
        off = min(abs(reading - wanted[0]) for reading in _possible_values(value, unit, wanted[1]))
        allowed = max(Fraction(str(absolute)), Fraction(str(relative)) * abs(wanted[0]))
        reason = f"{_shown(off)} from the gold number, {_shown(allowed)} allowed"
        return partial_credit(float(off <= allowed), text, reason)

    return score_against_gold(completion, example, read, gold, parse_gold, compare)


# Words that leave the number open.
_VAGUE = re.compile(r"\b(?:dozens|hundreds|thousands|millions|half\s+a)\b", re.IGNORECASE)
_NONE = re.compile(r"\s*(?:there\s+(?:are|is)\s+)?(?:no|none|没有|无)\b", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.])[-+]?[0-9][0-9,]{0,12}(?:\.[0-9]{1,20})?(?![0-9A-Za-z])")


def _by_digits(text: str) -> list[int]:
    numbers = [float(found.replace(",", "")) for found in _DIGITS.findall(text)]
    if any(number < 0 or number != int(number) for number in numbers):
        raise Unreadable(f"{text[:60]!r} is not a count")
    return [int(number) for number in numbers]


def _by_words(text: str) -> list[int]:
    if _VAGUE.search(text):
        raise Unreadable(f"{text[:60]!r} does not state an exact number")
    return numbers_in(text) or ([0] if _NONE.match(text) else [])


def read_count(value: Any) -> int:
    """Return the count that a text states, in digits or in English or Chinese words.

    Only the text after the last "=" counts. Raises ``Unreadable`` if it names no number or several.
    """
    text = str(value).rpartition("=")[2]
    found = set(_by_digits(text) or _by_words(text))
    if len(found) != 1:
        named = f"names {len(found)} numbers" if found else "names no number"
        raise Unreadable(f"{text.strip()[:60]!r} {named}")
    return found.pop()


@rule("counting")
def counting(
    completion: str, example: ExampleLike, read: Section = "answer", gold: str = "answer", near: Count = 0
) -> Verdict:
    """1 if the number that the answer names is the gold number, less in even steps for a near miss.

    Args:
        completion: the model's text.
        example: holds the gold number.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold number.
        near: the largest difference with a score above 0: a difference of d gives 1 − d / (near + 1).
    """

    def compare(text: str, wanted: int) -> Verdict:
        count = read_count(text)
        score = 1 - min(abs(count - wanted), near + 1) / (near + 1)
        return partial_credit(score, text, f"{count} counted, {wanted} expected")

    return score_against_gold(completion, example, read, gold, read_count, compare)
