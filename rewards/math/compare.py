"""Comparison of a parsed answer with a parsed gold answer.

Structures (items, tuples, sets, relations, units) are compared first, then expressions in
``_same_expression``: exact arithmetic, identical trees, certain difference in floating point, and last sympy
through the caller's ``backend``. The parent process passes one that raises ``Undecided``, a worker process
one that calls sympy. Both run the same code, so a verdict does not depend on the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

from rewards.math.bounds import Unreadable
from rewards.math.chains import definition, is_false, values
from rewards.math.clock import as_ratio, same_time
from rewards.math.dates import same_date
from rewards.math.intervals import Interval, as_intervals, ascending, union_of_intervals
from rewards.math.numeric import close_to, surely_differ
from rewards.math.parser import parse
from rewards.math.quantities import letter_unit
from rewards.math.read import AnswerItem, ParsedAnswer
from rewards.math.regions import region
from rewards.math.tree import Node, canonical, exact_value, number, symbol, symbols, walk
from rewards.math.units import DEGREES, RADIANS, Conversion, conversions, is_percent

_SYMMETRIC = frozenset(["=", "perp", "parallel", "!="])
_DEFINED = frozenset(["y", "f(x)", "g(x)", "h(x)"])
_MIN_DECIMALS, _MIN_DIGITS, _EXACT_DIGITS = 2, 3, 5


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


def _same_expression(answer: Node, gold: Node, backend: SymbolicBackend) -> bool:
    value, wanted = exact_value(answer), exact_value(gold)
    if value is not None and wanted is not None:
        return value == wanted or rounds_to(answer, gold, value, wanted)
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
            and _same_expression(x.low, y.low, backend)
            and _same_expression(x.high, y.high, backend)
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
        _same_expression(Node("*", (x, b.args[0])), Node("*", (y, a.args[0])), backend)
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
    return _same_expression(answer, gold, backend)


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


def _converted(tree: Node, change: Conversion) -> Node:
    """Return a number, or the value of ``name = value``, in another unit."""
    if tree.op == "rel" and definition(tree):
        return replace(tree, args=(*tree.args[:-1], _converted(tree.args[-1], change)))
    if change.factor != 1:
        tree = Node("*", (number(change.factor), tree))
    if change.pi:
        tree = Node("*", (tree, Node("^", (symbol("pi"), number(change.pi)))))
    return Node("+", (tree, number(change.offset))) if change.offset else tree


def _expressed_in(item: AnswerItem, other: AnswerItem) -> AnswerItem:
    """Reinterpret an item by the other side.

    ``2h`` is hours beside "2 hours", "5 m" is a product beside ``3m+2m``.
    """
    tree = item.tree
    if tree is None or other.tree is None:
        return item
    if item.unit:
        return _as_algebra(item, other)
    if other.unit and other.unit.measure == DEGREES.measure and other.unit.pi == 0 and _has_pi(tree):
        return replace(item, unit=RADIANS)
    if tree.op == "*" and len(tree.args) == 2 and tree.args[0].op == "num":
        return _letter_as_unit(item, tree, other)
    return item


def _as_algebra(item: AnswerItem, other: AnswerItem) -> AnswerItem:
    if not item.letters or other.unit or other.tree is None or item.unit is None:
        return item
    if not symbols(other.tree) & set(item.unit.name):
        return item
    try:
        return replace(item, tree=parse(item.letters), unit=None)
    except Unreadable:
        return item


def _letter_as_unit(item: AnswerItem, tree: Node, other: AnswerItem) -> AnswerItem:
    """Read the letter after a number as the other side's unit, or ``15k`` as 15000 beside a plain number."""
    named = letter_unit(tree.args[1])
    if named and other.unit and named.measure == other.unit.measure:
        return replace(item, tree=tree.args[0], unit=named)
    if tree.args[1] == symbol("k") and other.tree is not None and not symbols(other.tree):
        return replace(item, tree=Node("*", (number(1000), tree.args[0])))
    return item


def _has_pi(tree: Node) -> bool:
    return not symbols(tree) and any(node.name == "pi" for node in walk(tree))


def same_item(answer: AnswerItem, gold: AnswerItem, backend: SymbolicBackend) -> bool:
    """Return whether two items are equal: words by text, mathematics by meaning, with units converted."""
    if answer.tree is None or gold.tree is None:
        return answer.tree is gold.tree and answer.text == gold.text
    answer = _expressed_in(answer, gold)
    gold = _expressed_in(gold, answer)
    if answer.tree is None or gold.tree is None or is_false(_with_last_unit(answer)):
        return False
    for change in conversions(answer.unit, gold.unit):
        if same_tree(_converted(answer.tree, change), gold.tree, backend):
            return True
    return _same_percentage(answer, gold, backend)


def _with_last_unit(item: AnswerItem) -> Node:
    """Return the tree of "15% + 41% = 56%" with the sign of its last member, which was read as its unit."""
    tree = item.tree
    assert tree is not None
    op = "%" if is_percent(item.unit) else "deg" if item.unit == DEGREES else ""
    inside = op and tree.op == "rel" and any(node.op == op for node in walk(tree))
    return replace(tree, args=(*tree.args[:-1], Node(op, (tree.args[-1],)))) if inside else tree


def _same_percentage(answer: AnswerItem, gold: AnswerItem, backend: SymbolicBackend) -> bool:
    """Compare a percentage with a fraction: 50% is also 0.5."""
    units = answer.unit, gold.unit
    if not (None in units and any(is_percent(unit) for unit in units)):
        return False
    sides = [Node("%", (p.tree,)) if p.unit else p.tree for p in (answer, gold) if p.tree]
    return _same_expression(sides[0], sides[1], backend)


def _elements(parsed: ParsedAnswer) -> list[Node]:
    """Return the elements of an answer that can be a set or a tuple; empty if an item is words."""
    trees = [item.tree for item in parsed.items if item.tree is not None]
    if len(trees) < len(parsed.items):
        return []
    return list(trees[0].args) if len(trees) == 1 and trees[0].op in ("set", "bracket") else trees


def _coordinates(parsed: ParsedAnswer) -> list[Node]:
    """Return the concatenated coordinates of the answer's points."""
    return [item for tree in _elements(parsed) for item in (tree.args if tree.op == "bracket" else (tree,))]


def _defined_name(item: AnswerItem) -> Node | None:
    defined = definition(item.tree) if item.tree is not None else None
    return defined[0] if defined and symbols(defined[0]) else None


def _in_gold_order(answer: ParsedAnswer, gold: ParsedAnswer) -> ParsedAnswer:
    """Reorder the answer's items by the gold's names, if both sides use the same names for all items."""
    names, wanted = (
        [_defined_name(item) for item in answer.items],
        [_defined_name(item) for item in gold.items],
    )
    if None in names or None in wanted or len(set(names)) < len(names) or set(names) != set(wanted):
        return answer
    return ParsedAnswer(tuple(answer.items[names.index(name)] for name in wanted), answer.ordered)


def _same_parsed(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    if len(answer.items) != len(gold.items) and _same_solutions(answer, gold, backend):
        return True
    regions = _regions(answer, gold)
    if regions:
        return same_intervals(*regions, backend)
    if not (answer.ordered and gold.ordered):
        return _same_unordered(answer, gold, backend)
    counts = len(answer.items), len(gold.items)
    if counts[0] == counts[1]:
        pairs = zip(_in_gold_order(answer, gold).items, gold.items, strict=True)
        return all(same_item(a, g, backend) for a, g in pairs)
    if 1 not in counts:
        return _same_coordinates(answer, gold, backend)
    single = (answer if counts[0] == 1 else gold).items[0].tree
    if single is None or single.op not in ("set", "bracket") or not _elements(answer) or not _elements(gold):
        return False
    return (same_set if single.op == "set" else same_sequence)(_elements(answer), _elements(gold), backend)


def _regions(answer: ParsedAnswer, gold: ParsedAnswer) -> tuple[tuple[Interval, ...], tuple[Interval, ...]] | None:
    """Return both sides as sets of real numbers, if one of them gives several conditions or intervals."""
    if len(answer.items) == len(gold.items) == 1:
        return None
    first, second = _region(answer, gold), _region(gold, answer)
    return (first, second) if first and second else None


def _region(parsed: ParsedAnswer, other: ParsedAnswer) -> tuple[Interval, ...] | None:
    trees = [item.tree for item in parsed.items if item.tree is not None]
    if len(trees) < len(parsed.items) or any(item.unit for item in parsed.items):
        return None
    if len(trees) == 1:
        return as_intervals(trees[0])
    single = other.items[0].tree if len(other.items) == 1 else None
    if single is not None and single.op == "cup" and all(tree.op in ("bracket", "cup") for tree in trees):
        return union_of_intervals(trees)
    return region(trees, parsed.joined)


def _same_coordinates(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Compare points with their coordinates: ``(5, 2), (7, 2)`` with ``p=5, q=2; p=7, q=2``."""
    first, second = _coordinates(answer), _coordinates(gold)
    grouped = {tree.op for tree in _elements(answer)} == {"bracket"} or {t.op for t in _elements(gold)} == {
        "bracket"
    }
    return grouped and bool(first and second) and same_sequence(first, second, backend)


def _union(parsed: ParsedAnswer) -> tuple[Interval, ...] | None:
    """Return the union of an answer's sets of numbers, or None; several points are no intervals."""
    trees = [item.tree for item in parsed.items if item.tree is not None]
    points = len(trees) > 1 and not parsed.joined and all(tree.op == "bracket" for tree in trees)
    return None if points or len(trees) < len(parsed.items) else union_of_intervals(trees)


def _same_unordered(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Compare solution sets: unions of intervals, or values in any order."""
    first_union, second_union = _union(answer), _union(gold)
    if first_union and second_union:
        return same_intervals(first_union, second_union, backend)
    same_count = len(answer.items) == len(gold.items)
    if same_count and match_one_to_one(answer.items, gold.items, lambda a, g: same_item(a, g, backend)):
        return True
    if len(answer.items) == len(gold.items) == 1:
        return False
    first, second = _elements(answer), _elements(gold)
    same = bool(first and second) and same_set(first, second, backend)
    return same or _same_coordinates(answer, gold, backend)


def _same_solutions(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Compare an equation in one letter with all its solutions: ``x² = 4`` with ``x = ±2``."""
    for one, other in ((answer, gold), (gold, answer)):
        equation = one.items[0].tree if len(one.items) == 1 else None
        if equation is None or equation.op != "rel" or equation.name != "=" or definition(equation):
            continue
        names = symbols(equation)
        values = _named_values(other)
        if len(names) == 1 and len(values) == len(other.items) and {name for name, _ in values} == names:
            sides = equation.args[0], equation.args[1]
            return backend.solves(sides, next(iter(names)), [value for _, value in values])
    return False


def _named_values(parsed: ParsedAnswer) -> list[tuple[str, Node]]:
    defined = [definition(item.tree) for item in parsed.items if item.tree is not None]
    return [(d[0].name.split("_")[0], d[1]) for d in defined if d and d[0].op == "sym"]


def same_answer(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Return whether the answer equals the gold answer or one of its alternatives."""
    undecided = False
    pairs = [(a, g) for g in (gold, *gold.alternatives) for a in (answer, *answer.alternatives)]
    for one, parsed in pairs:
        try:
            if _same_parsed(one, parsed, backend):
                return True
        except Undecided:
            undecided = True
    if undecided:
        raise Undecided
    return False
