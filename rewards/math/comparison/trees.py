"""Comparison of two trees of expressions or structures.

Structures (tuples, sets, relations) are compared first, then expressions in
``same_expression``: exact arithmetic, identical trees, certain difference in floating point, and last sympy
through the caller's ``backend``. The parent process passes one that raises ``Undecided``, a worker process
one that calls sympy. Both run the same code, so a verdict does not depend on the process. Items with units
are compared in ``rewards.math.comparison.items``, whole answers in ``rewards.math.comparison.answers``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

from rewards.math.amounts.clock import as_ratio, same_time
from rewards.math.amounts.dates import same_date
from rewards.math.comparison.chains import definition, values
from rewards.math.comparison.intervals import Interval, as_intervals, ascending
from rewards.math.numeric import close_to, surely_differ
from rewards.math.tree import Node, canonical, exact_value, symbols

_SYMMETRIC = frozenset(["=", "perp", "parallel", "!="])
_DEFINED = frozenset(["y", "f(x)", "g(x)", "h(x)"])
_MIN_DECIMALS, _MIN_DIGITS, _EXACT_DIGITS, _LONG_DIGITS = 2, 3, 5, 11


class Undecided(Exception):
    """The comparison needs sympy."""


class SymbolicBackend(Protocol):
    """Comparisons that the cheap steps leave undecided."""

    def equal(self, a: Node, b: Node) -> bool:
        """Return whether two expressions are the same function of their symbols."""

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        """Return whether two equations are multiples of each other."""

    def same_inequality(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        """Return whether the differences of two (left, right) pairs are positive multiples of each other."""

    def solves(self, equation: tuple[Node, Node], name: str, values: Sequence[Node]) -> bool:
        """Return whether ``values`` are exactly the real solutions of an equation in ``name``."""


def _decimals(node: Node) -> int:
    return _decimals(node.args[0]) if node.op == "neg" else node.decimals


def _significant(gold: Node, wanted: Fraction) -> int:
    """Return the number of significant digits of a gold with at least two decimals, else 0."""
    places = _decimals(gold)
    if places < _MIN_DECIMALS:
        return 0
    return len(str(abs(wanted.numerator * 10**places // wanted.denominator)))


def rounds_to(answer: Node, gold: Node, value: Fraction, wanted: Fraction) -> bool:
    """Return whether an answer rounds to a gold that is a decimal with at least two decimals.

    A decimal with more digits that rounds to the gold is right if the gold has at least three significant
    digits, an exact value only if it has five: 1/3 is not 0.33, but it is 0.33333.
    """
    digits, places = _significant(gold, wanted), _decimals(gold)
    longer = digits >= _MIN_DIGITS and _decimals(answer) > places
    if not longer and (digits < _EXACT_DIGITS or _decimals(answer) >= 0):
        return False
    return bool(abs(value - wanted) * 2 * 10**places <= 1)


def _rounds_from(answer: Node, gold: Node, value: Fraction, wanted: Fraction | None) -> bool:
    """Return whether a decimal of more than ten digits is the rounding of an exact gold, such as √2."""
    places = _decimals(answer)
    if places < 1 or len(str(abs(value.numerator * 10**places // value.denominator))) < _LONG_DIGITS:
        return False
    if wanted is not None:
        return _decimals(gold) < 0 and abs(value - wanted) * 2 * 10**places <= 1
    return not symbols(gold) and close_to(gold, value, places)


def same_expression(answer: Node, gold: Node, backend: SymbolicBackend) -> bool:
    """Return whether two expressions are equal, a long decimal also to an exact value that it rounds."""
    value, wanted = exact_value(answer), exact_value(gold)
    if value is not None and wanted is not None:
        return (
            value == wanted
            or rounds_to(answer, gold, value, wanted)
            or _rounds_from(answer, gold, value, wanted)
        )
    if value is not None and _rounds_from(answer, gold, value, None):
        return True
    if answer == gold or canonical(answer) == canonical(gold):
        return True
    if wanted is not None and _significant(gold, wanted) >= _EXACT_DIGITS and not symbols(answer):
        return close_to(answer, wanted, _decimals(gold))
    if surely_differ(answer, gold, symbols(answer) | symbols(gold)):
        return False
    return backend.equal(answer, gold)


def same_sequence(answers: Sequence[Node], golds: Sequence[Node], backend: SymbolicBackend) -> bool:
    """Return whether two lists hold the same trees in the same order."""
    return len(answers) == len(golds) and all(
        same_tree(a, g, backend) for a, g in zip(answers, golds, strict=True)
    )


def match_one_to_one(answers: Sequence[object], golds: Sequence[object], same: Callable[..., bool]) -> bool:
    """Return whether answers and golds can be paired. Equality is transitive, so a greedy search suffices."""
    if len(answers) != len(golds):
        return False
    left = list(answers)
    for gold in golds:
        found = next((i for i, answer in enumerate(left) if same(answer, gold)), None)
        if found is None:
            return False
        del left[found]
    return True


def _distinct(items: Sequence[Node], backend: SymbolicBackend) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        if not any(same_tree(item, other, backend) for other in kept):
            kept.append(item)
    return kept


def same_set(answers: Sequence[Node], golds: Sequence[Node], backend: SymbolicBackend) -> bool:
    """Return whether two lists are equal as sets: order and repeats do not matter, subsets are not equal."""
    first, second = _distinct(answers, backend), _distinct(golds, backend)
    return match_one_to_one(first, second, lambda a, g: same_tree(a, g, backend))


def same_intervals(a: tuple[Interval, ...], b: tuple[Interval, ...], backend: SymbolicBackend) -> bool:
    """Return whether two lists of intervals are equal, and of the same variable if both name one."""

    def same(x: Interval, y: Interval) -> bool:
        named = not x.name or not y.name or x.name == y.name
        return (
            named
            and x.closed == y.closed
            and same_expression(x.low, y.low, backend)
            and same_expression(x.high, y.high, backend)
        )

    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _same_relation(answer: Node, gold: Node, backend: SymbolicBackend) -> bool:
    first, second = ascending(answer), ascending(gold)
    known, wanted = definition(first), definition(second)
    if known and wanted:
        names = known[0].name, wanted[0].name
        if known[0] == wanted[0] or set(names) <= _DEFINED:
            return same_tree(known[1], wanted[1], backend)
    if first.name != second.name or len(first.args) != len(second.args):
        return False
    if first == second:
        return True
    if set(first.name.split()) <= _SYMMETRIC and len(first.args) == 2:
        return _same_symmetric(first, second, backend)
    if first.name in ("<", "<=") and symbols(first) == symbols(second):
        sides = (first.args[0], first.args[1]), (second.args[0], second.args[1])
        return same_sequence(first.args, second.args, backend) or backend.same_inequality(*sides)
    return same_sequence(first.args, second.args, backend)


def _same_symmetric(first: Node, second: Node, backend: SymbolicBackend) -> bool:
    a, b = first, second
    if a.name != "=":
        return same_sequence(a.args, b.args, backend) or same_sequence(a.args, b.args[::-1], backend)
    if symbols(a) != symbols(b):
        return False
    return backend.same_equation((a.args[0], a.args[1]), (b.args[0], b.args[1]))


def _same_ratio(a: Node, b: Node, backend: SymbolicBackend) -> bool:
    """Return whether two ratios are proportional term by term: 2:4 = 1:2."""
    if len(a.args) != len(b.args):
        return False
    return all(
        same_expression(Node("*", (x, b.args[0])), Node("*", (y, a.args[0])), backend)
        for x, y in zip(a.args, b.args, strict=True)
    )


_STRUCTURES = frozenset(["rel", "bracket", "set", "cup", "cap", "setminus", "matrix"])


def same_tree(answer: Node, gold: Node, backend: SymbolicBackend) -> bool:
    """Return whether two trees, of expressions or structures, are equal in meaning."""
    if answer == gold:
        return True
    ops = (answer.op, gold.op)
    if "date" in ops:
        return same_date(answer, gold)
    if "range" in ops:
        return ops[0] == ops[1] and same_sequence(answer.args, gold.args, backend)
    if gold.op == "clock":
        defined = definition(answer)
        return same_time(defined[1] if defined else answer, gold)
    if answer.op == "clock":
        ratio = as_ratio(answer)
        return ratio.op == ":" and same_tree(ratio, gold, backend)
    intervals = as_intervals(answer), as_intervals(gold)
    if ops != ("bracket", "bracket") and intervals[0] and intervals[1]:
        return same_intervals(intervals[0], intervals[1], backend)
    if ops == ("set", "set"):
        return same_set(answer.args, gold.args, backend)
    if ops == ("rel", "rel"):
        return _same_relation(answer, gold, backend)
    if ops == (":", ":"):
        return _same_ratio(answer, gold, backend)
    if ops[0] in _STRUCTURES or ops[1] in _STRUCTURES:
        return _same_structure(answer, gold, backend)
    return same_expression(answer, gold, backend)


def _same_structure(answer: Node, gold: Node, backend: SymbolicBackend) -> bool:
    """Compare brackets and matrices entry by entry, and a value with its definition ``x = value``."""
    if answer.op == gold.op:
        return answer.name == gold.name and same_sequence(answer.args, gold.args, backend)
    for one, other, swapped in ((answer, gold, False), (gold, answer, True)):
        inner = _inner(one, other)
        if inner is not None:
            return same_tree(other, inner, backend) if swapped else same_tree(inner, other, backend)
        given = values(one) if other.op != "rel" else []
        if given:
            return any(
                same_tree(other, value, backend) if swapped else same_tree(value, other, backend)
                for value in given
            )
    rows = _as_row(answer), _as_row(gold)
    if rows[0] and rows[1]:
        return same_sequence(rows[0], rows[1], backend)
    if "{}" in (answer.name, gold.name) and {answer.op, gold.op} == {"set", "bracket"}:
        return same_sequence(answer.args, gold.args, backend)  # braces that LaTeX does not print
    return False


def _inner(one: Node, other: Node) -> Node | None:
    """Return 1 of ``{1}`` beside a value, and the set of ``x ∈ {1, 2}`` beside a set; else None."""
    if one.op == "set" and len(one.args) == 1 and other.op not in _STRUCTURES:
        return one.args[0]
    member = one.op == "rel" and one.name == "in" and one.args[1].op == "set"
    return one.args[1] if member and other.op == "set" else None


def _as_row(node: Node) -> tuple[Node, ...]:
    """Return the entries of a vector, ``(1, 2)`` or a matrix of one row or column; else nothing."""
    if node.op == "matrix":
        rows = [row.args for row in node.args]
        return (
            rows[0] if len(rows) == 1 else tuple(r[0] for r in rows) if {len(r) for r in rows} == {1} else ()
        )
    return node.args if node.op == "bracket" and node.name == "()" else ()
