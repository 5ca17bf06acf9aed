"""Rule "numeric": a number within a tolerance of the gold number."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from rewards.math.bounds import Unreadable
from rewards.math.numeric import evaluate
from rewards.math.quantities import PERCENT, Unit, contradict, conversion, find_unit
from rewards.math.read import Part, read_answer
from rewards.math.tree import Node, exact
from rewards.registry import Answerable, rule
from rewards.rules.common import NonNegative, Section, compared, graded
from rewards.verdict import Verdict

_ABOUT = re.compile(
    r"^\s*(?:about|approximately|approx\.?|around|roughly|nearly|~|大约|约)\s*", re.IGNORECASE
)
# "1e5" is how programs write numbers; mathematics reads it as one times e times five.
_PROGRAM = re.compile(r"\s*([-+]?[0-9]{1,20}(?:\.[0-9]{0,20})?)[eE]([-+]?[0-9]{1,2})\s*")
_ANY = re.compile(
    r"(?<![\w.,])([-+]?[0-9][0-9,]{0,20}(?:\.[0-9]{1,20})?)(?![\w,]*[0-9])\s{0,3}([A-Za-z°%]{0,20})"
)


def _value(tree: Node) -> Fraction | None:
    if tree.op == "rel" and tree.name == "=":
        return _value(tree.args[-1])
    value = exact(tree)
    if value is not None:
        return value
    computed = evaluate(tree, {})
    return Fraction(computed.z.real) if computed and abs(computed.z.imag) <= computed.error else None


def _only_number(text: str) -> tuple[Fraction, Unit | None]:
    """The number in a text that says more, with the unit behind it."""
    found = _ANY.findall(text)
    if len(found) != 1:
        raise Unreadable(f"{text[:60]!r} is not one number")
    digits, word = found[0]
    return Fraction(digits.replace(",", "")), find_unit(word) if word else None


def read_number(text: str) -> tuple[Fraction, Unit | None]:
    """Return the one number that a text states, and its unit. Raises ``Unreadable`` if it is not one."""
    text = _ABOUT.sub("", text)
    program = _PROGRAM.fullmatch(text)
    if program:
        return Fraction(program[1]) * Fraction(10) ** int(program[2]), None
    parts = read_answer(text).parts
    part = parts[0] if len(parts) == 1 else Part("")
    value = _value(part.tree) if part.tree else None
    return _only_number(text) if value is None else (value, part.unit)


def _meant(value: Fraction, unit: Unit | None, gold_unit: Unit | None) -> list[Fraction]:
    """What the number may be in the gold number's unit: 50% is 50 and 0.5, as in the rule "accuracy"."""
    readings = [value * conversion(unit, gold_unit)]
    if unit == PERCENT and gold_unit is None:
        readings.append(value / 100)
    if unit is None and gold_unit == PERCENT:
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
    example: Answerable,
    read: Section = "answer",
    gold: str = "answer",
    absolute: NonNegative = 0.0,
    relative: NonNegative = 0.0,
) -> Verdict:
    """1 if the answer is a number within the tolerance of the gold number, else 0; units convert.

    Args:
        completion: the model's text.
        example: holds the gold number.
        read: the part of the completion to read.
        gold: "answer", or the example's meta column that holds the gold number.
        absolute: how far it may be off.
        relative: how far it may be off as a share of the gold number; the wider of the two counts.
    """

    def want(value: Any) -> tuple[Fraction, Unit | None]:
        return read_number(str(value))

    def compare(text: str, wanted: tuple[Fraction, Unit | None]) -> Verdict:
        value, unit = read_number(text)
        if contradict(unit, wanted[1]):
            return graded(0.0, text, "the unit measures something else than the gold answer's")
        off = min(abs(reading - wanted[0]) for reading in _meant(value, unit, wanted[1]))
        allowed = max(Fraction(str(absolute)), Fraction(str(relative)) * abs(wanted[0]))
        reason = f"{_shown(off)} from the gold number, {_shown(allowed)} allowed"
        return graded(float(off <= allowed), text, reason)

    return compared(completion, example, read, gold, want, compare)
