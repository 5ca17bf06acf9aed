"""Comparison of one item of an answer with one item of the gold answer, as OlympiadBench does it.

An item is tried as an interval, a number, an equation and an expression, in this order; the first form that
both have decides. Numbers and constants may differ by the row's error (times 1.01, for rounding), numbers
also by a factor of 100; expressions by a constant below 1e-3; equations by a constant factor.

Expressions are evaluated at a few fixed points: if they differ there, they are unequal. Otherwise sympy
decides in a worker process with a time limit (``rewards.workers.pool``), so that no text of a model is
evaluated. ``eval.official.olympiadbench`` lists the differences from the official code.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rewards.math.bounds import Unreadable
from rewards.math.clean import clean
from rewards.math.decide import Incomparable
from rewards.math.numeric import Value, evaluate, sample_points
from rewards.math.parser import parse
from rewards.math.read import read_answer, read_gold
from rewards.math.split import split_top_level
from rewards.math.tree import Node, exact_value, symbols
from rewards.verdict import Status
from rewards.workers.pool import OutOfTime, shared_pool

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_NAME = r"\{[^{}]*\}|[A-Za-z0-9]"
_SPELLINGS = [
    (re.compile(r"\\hbar(?![A-Za-z])"), "h_{br}"),
    (re.compile(rf"\^\s?({_NAME})\s?_\s?({_NAME})"), r"_\2^\1"),
    # f(x,y) is a name with arguments; the parser would take (x,y) for a point.
    (re.compile(r"([A-Za-z])\s?\(\s?([A-Za-z])\s?,\s?([A-Za-z])\s?\)"), r"\1_{\2\3}"),
]
# The benchmark's grammar skips white space, also within a number: \mathbf{6 6 7} is 667.
_SPACED_NUMBER = re.compile(r"(?<![\^_\d.])\d[\d ]*(?:\. ?\d[\d ]*)?")
_CONSTANT_TOLERANCE = 1e-3
_SLACK = 1.01
_SAFETY = 64.0
_STRUCTURES = frozenset(["rel", "bracket", "set", "cup", "cap", "matrix"])


@dataclass
class Budget:
    """Time budget of sympy: seconds for one pair of items, and seconds left for all pairs of a verdict."""

    each: float
    left: float

    def equal(self, answer: str, gold: str) -> bool:
        """Return whether a worker finds both equal. Raises ``Incomparable``, ``OutOfTime``."""
        if self.left <= 0:
            raise OutOfTime("no time is left for another pair of items")
        start = time.monotonic()
        try:
            return shared_pool().equal(answer, gold, min(self.each, self.left))
        finally:
            self.left -= time.monotonic() - start


def same_item(answer: str, gold: str, error: float, budget: Budget) -> Status:
    """Compare two items.

    Args:
        answer: item of the model's answer, without decoration.
        gold: item of the gold answer, without decoration.
        error: absolute tolerance of numbers.
        budget: time budget of sympy.

    Returns:
        ``CORRECT``, ``WRONG``, ``UNPARSABLE_ANSWER`` (one of the two cannot be parsed), ``TIMEOUT``.
    """
    if answer and answer == gold:
        return Status.CORRECT
    if _is_interval(answer) and _is_interval(gold):
        return _attempt(lambda: _same_intervals(answer, gold, error, budget))
    if _same_number(answer, gold, error):
        return Status.CORRECT
    if "=" in answer and "=" in gold:
        return _attempt(lambda: _same_equation(answer, gold, budget))
    return _attempt(lambda: _same_expression(_right_side(answer), _right_side(gold), error, budget))


def _attempt(comparison: Callable[[], bool]) -> Status:
    try:
        return Status.CORRECT if comparison() else Status.WRONG
    except (Unreadable, Incomparable):
        return Status.UNPARSABLE_ANSWER
    except OutOfTime:
        return Status.TIMEOUT


def _same_number(answer: str, gold: str, error: float) -> bool:
    """Return whether both are numbers in digits and equal, the answer also as a percentage or a share."""
    if not (_NUMBER.fullmatch(answer) and _NUMBER.fullmatch(gold)):
        return False
    value, wanted = float(answer), float(gold)
    return any(abs(scaled - wanted) <= error * _SLACK for scaled in (value / 100, value, value * 100))


def _is_interval(text: str) -> bool:
    """Return whether each member of the union is in brackets and has a comma outside of inner brackets."""
    return bool(text) and all(
        one[:1] in ("(", "[") and one[-1:] in (")", "]") and len(_ends(one)) > 1 for one in _members(text)
    )


def _members(text: str) -> list[str]:
    return [one.strip() for one in re.split(r"\\cup(?![A-Za-z])", text)]


def _ends(interval: str) -> list[str]:
    return split_top_level(interval[1:-1], ",")


def _same_intervals(answer: str, gold: str, error: float, budget: Budget) -> bool:
    """Compare intervals, unions and tuples: the same brackets and equal ends, in the same order."""
    answers, golds = _members(answer), _members(gold)
    return len(answers) == len(golds) and all(
        _same_interval(a, g, error, budget) for a, g in zip(answers, golds, strict=True)
    )


def _same_interval(answer: str, gold: str, error: float, budget: Budget) -> bool:
    if (answer[0], answer[-1]) != (gold[0], gold[-1]):
        return False
    answers, golds = _ends(answer), _ends(gold)
    return len(answers) == len(golds) and all(
        _same_expression(_right_side(a), _right_side(g), error, budget)
        for a, g in zip(answers, golds, strict=True)
    )


def _right_side(text: str) -> str:
    """Return the text between the first and second "=", or all without one: "x=1" means "1"."""
    sides = text.split("=")
    return sides[min(1, len(sides) - 1)].strip()


def _respell(text: str) -> str:
    """Rewrite notation of the benchmark's answers that this project's parser does not support."""
    text = re.sub(r"\s+", " ", clean(text))
    text = _SPACED_NUMBER.sub(lambda number: number.group().replace(" ", ""), text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text


def _same_expression(answer: str, gold: str, error: float, budget: Budget) -> bool:
    answer, gold = _respell(answer), _respell(gold)
    first, second = parse(answer), parse(gold)
    if first == second:
        return True
    if first.op in _STRUCTURES or second.op in _STRUCTURES:
        return False
    names = symbols(first) | symbols(second)
    if bool(symbols(first)) != bool(symbols(second)):
        return False
    decided = _near_functions(first, second, names) if names else _near_constants(first, second, error)
    return _by_sympy(f"({answer})-({gold})", "0", budget) if decided is None else decided


def _near_constants(first: Node, second: Node, error: float) -> bool | None:
    """Return whether two constants are within the error; None if floating point cannot decide."""
    exactly = exact_value(first), exact_value(second)
    if exactly[0] is not None and exactly[1] is not None:
        return bool(abs(exactly[0] - exactly[1]) <= error * _SLACK)
    values = evaluate(first, {}), evaluate(second, {})
    if values[0] is None or values[1] is None:
        return None
    gap = abs(values[0].z - values[1].z)
    if gap <= error * _SLACK:
        return True
    return None if gap <= _SAFETY * (values[0].error + values[1].error) else False


def _near_functions(first: Node, second: Node, names: frozenset[str]) -> bool | None:
    """Return whether two expressions differ by a constant below 1e-3; None if they may be the same."""
    minus = Node("+", (first, Node("neg", (second,))))
    gaps = _values(minus, names)
    if len(gaps) < 2:
        return None
    if not _constant(gaps):
        return False
    if all(abs(gap.z) <= _SAFETY * gap.error for gap in gaps):
        return None
    return abs(gaps[0].z) < _CONSTANT_TOLERANCE


def _same_equation(answer: str, gold: str, budget: Budget) -> bool:
    """Return whether left minus right of one equation is a nonzero constant times that of the other."""
    sides = _difference(answer), _difference(gold)
    first, second = (parse(side) for side in sides)
    ratios = _values(Node("/", (first, second)), symbols(first) | symbols(second))
    if len(ratios) > 1 and (not _constant(ratios) or abs(ratios[0].z) <= _SAFETY * ratios[0].error):
        return False
    return _by_sympy(f"{sides[0]}=0", f"{sides[1]}=0", budget)


def _difference(equation: str) -> str:
    sides = [_respell(side) for side in equation.split("=")]
    if len(sides) != 2 or not all(sides):
        raise Unreadable("an equation has two sides")
    return f"({sides[0]})-({sides[1]})"


def _values(node: Node, names: frozenset[str]) -> list[Value]:
    found = (evaluate(node, point) for point in sample_points(names))
    return [value for value in found if value is not None]


def _constant(values: Iterable[Value]) -> bool:
    first, *others = values
    return all(abs(v.z - first.z) <= _SAFETY * (v.error + first.error) for v in others)


def _by_sympy(answer: str, gold: str, budget: Budget) -> bool:
    """Compare in a worker. Neither text may end with a letter, which could be parsed as a unit.

    Raises ``Unreadable``, ``Incomparable``, ``OutOfTime``.
    """
    read_answer(answer)
    read_gold(gold)
    return budget.equal(answer, gold)
