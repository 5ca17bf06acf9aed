"""Whether a reading of an answer says the same as a reading of the gold answer.

Structure is compared here (blanks, tuples, sets, relations, units); two expressions are compared by
``_leaf``: exact arithmetic, identical trees, certain difference in floating point, and only then sympy,
through the ``arbiter`` that the caller passes. The parent process passes one that raises ``Undecided``; a
worker process passes sympy's. Both run the same code, so a verdict does not depend on where it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

from rewards.math.intervals import Interval, ascending, region, union
from rewards.math.numeric import close_to, surely_differ
from rewards.math.quantities import DEGREES, RADIANS, Unit, contradict, conversion, letter_unit, same_time
from rewards.math.read import Part, Reading
from rewards.math.tree import Node, canonical, exact, number, symbol, symbols, walk

_SYMMETRIC = frozenset(["=", "perp", "parallel", "!="])
_DEFINED = frozenset(["y", "f(x)", "g(x)", "h(x)"])
_MIN_DECIMALS, _MIN_DIGITS, _EXACT_DIGITS = 2, 3, 5


class Undecided(Exception):
    """The comparison needs sympy."""


class Arbiter(Protocol):
    """What decides where the cheap paths cannot."""

    def equal(self, a: Node, b: Node) -> bool:
        """Whether two expressions are the same function of their symbols."""

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        """Whether two equations are multiples of each other."""

    def same_inequality(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        """Whether two differences (left, right) are multiples by a positive number."""

    def solves(self, equation: tuple[Node, Node], name: str, values: Sequence[Node]) -> bool:
        """Whether these values are the real solutions of an equation in one name, all of them."""


def _decimals(node: Node) -> int:
    return _decimals(node.args[0]) if node.op == "neg" else node.decimals


def _significant(gold: Node, wanted: Fraction) -> int:
    """How many significant digits a decimal gold with at least two decimals is written with, else 0."""
    places = _decimals(gold)
    if places < _MIN_DECIMALS:
        return 0
    return len(str(abs(wanted.numerator * 10**places // wanted.denominator)))


def rounds_to(answer: Node, gold: Node, value: Fraction, wanted: Fraction) -> bool:
    """The rounding rule, for a gold that is a decimal with at least two decimals.

    A written decimal that carries more digits and rounds to it is right if the gold has at least three
    significant digits, an exact value only if it has five: 1/3 is not 0.33, but it is 0.33333.
    """
    digits, places = _significant(gold, wanted), _decimals(gold)
    longer = digits >= _MIN_DIGITS and _decimals(answer) > places
    if not longer and (digits < _EXACT_DIGITS or _decimals(answer) >= 0):
        return False
    return abs(value - wanted) * 2 * 10**places <= 1


def _leaf(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    value, wanted = exact(answer), exact(gold)
    if value is not None and wanted is not None:
        return value == wanted or rounds_to(answer, gold, value, wanted)
    if answer == gold or canonical(answer) == canonical(gold):
        return True
    if wanted is not None and _significant(gold, wanted) >= _EXACT_DIGITS and not symbols(answer):
        return close_to(answer, wanted, _decimals(gold))
    if surely_differ(answer, gold, symbols(answer) | symbols(gold)):
        return False
    return arbiter.equal(answer, gold)


def ordered(answers: Sequence[Node], golds: Sequence[Node], arbiter: Arbiter) -> bool:
    """Whether two lists hold the same trees in the same order."""
    return len(answers) == len(golds) and all(
        same_tree(a, g, arbiter) for a, g in zip(answers, golds, strict=True)
    )


def matched(answers: Sequence[object], golds: Sequence[object], same: Callable[..., bool]) -> bool:
    """Whether each gold has its own answer. Equality is transitive, so the first that fits will do."""
    if len(answers) != len(golds):
        return False
    left = list(answers)
    for gold in golds:
        found = next((i for i, answer in enumerate(left) if same(answer, gold)), None)
        if found is None:
            return False
        del left[found]
    return True


def _distinct(items: Sequence[Node], arbiter: Arbiter) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        if not any(same_tree(item, other, arbiter) for other in kept):
            kept.append(item)
    return kept


def same_set(answers: Sequence[Node], golds: Sequence[Node], arbiter: Arbiter) -> bool:
    """Whether two lists hold the same elements, in any order, repeats once. A part is not the whole."""
    first, second = _distinct(answers, arbiter), _distinct(golds, arbiter)
    return matched(first, second, lambda a, g: same_tree(a, g, arbiter))


def same_intervals(a: tuple[Interval, ...], b: tuple[Interval, ...], arbiter: Arbiter) -> bool:
    """Whether two sets of real numbers have the same intervals, of the same variable if both name one."""

    def same(x: Interval, y: Interval) -> bool:
        named = not x.name or not y.name or x.name == y.name
        return (
            named and x.closed == y.closed and _leaf(x.low, y.low, arbiter) and _leaf(x.high, y.high, arbiter)
        )

    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def definition(tree: Node) -> tuple[Node, Node] | None:
    """(name, value) of ``x = 3``, ``(p, q) = (3, 2)``, ``AC = 4 + 1 = 5 ≈ 4.9``; None for another equation.

    The value is the last member that is not an approximation of one before it. A chain of numbers alone,
    ``3·2 = 6``, is its last member under the name of its first.
    """
    names = tree.name.split() if tree.op == "rel" else []
    if not names or not set(names) <= {"=", "~"}:
        return None
    last = names.index("~") if "~" in names[1:] and names[0] == "=" else len(names)
    name, value = tree.args[0], tree.args[last]
    if not symbols(tree):
        return name, value
    if not is_name(name) or symbols(name) & symbols(value):
        return None
    return (name, value) if name.op == "sym" or not symbols(value) else None


def is_name(node: Node) -> bool:
    """Whether a value is defined under this: a letter, ``AC``, ``(p, q)``, or a ratio or length of such."""
    if node.op in ("*", "bracket", "/", ":"):
        return all(is_name(arg) for arg in node.args)
    return node.op == "sym" or (node.op == "abs" and node.args[0].op == "*" and is_name(node.args[0]))


def _same_relation(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    first, second = ascending(answer), ascending(gold)
    known, wanted = definition(first), definition(second)
    if known and wanted:
        names = known[0].name, wanted[0].name
        if known[0] == wanted[0] or set(names) <= _DEFINED:
            return same_tree(known[1], wanted[1], arbiter)
    if first.name != second.name or len(first.args) != len(second.args):
        return False
    if first == second:
        return True
    if set(first.name.split()) <= _SYMMETRIC and len(first.args) == 2:
        return _same_symmetric(first, second, arbiter)
    if first.name in ("<", "<=") and symbols(first) == symbols(second):
        sides = (first.args[0], first.args[1]), (second.args[0], second.args[1])
        return ordered(first.args, second.args, arbiter) or arbiter.same_inequality(*sides)
    return ordered(first.args, second.args, arbiter)


def _same_symmetric(first: Node, second: Node, arbiter: Arbiter) -> bool:
    a, b = first, second
    if a.name != "=":
        return ordered(a.args, b.args, arbiter) or ordered(a.args, b.args[::-1], arbiter)
    if symbols(a) != symbols(b):
        return False
    return arbiter.same_equation((a.args[0], a.args[1]), (b.args[0], b.args[1]))


def _same_ratio(a: Node, b: Node, arbiter: Arbiter) -> bool:
    """Proportional, term by term: 2:4 = 1:2."""
    if len(a.args) != len(b.args):
        return False
    return all(
        _leaf(Node("*", (x, b.args[0])), Node("*", (y, a.args[0])), arbiter)
        for x, y in zip(a.args, b.args, strict=True)
    )


_STRUCTURES = frozenset(["rel", "bracket", "set", "cup", "cap", "setminus", "matrix"])


def same_tree(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    """Whether two trees, of expressions or of structures, say the same."""
    if answer == gold:
        return True
    ops = (answer.op, gold.op)
    if "clock" in ops:
        return same_time(answer, gold)
    intervals = region(answer), region(gold)
    if ops != ("bracket", "bracket") and intervals[0] and intervals[1]:
        return same_intervals(intervals[0], intervals[1], arbiter)
    if ops == ("set", "set"):
        return same_set(answer.args, gold.args, arbiter)
    if ops == ("rel", "rel"):
        return _same_relation(answer, gold, arbiter)
    if ops == (":", ":"):
        return _same_ratio(answer, gold, arbiter)
    if ops[0] in _STRUCTURES or ops[1] in _STRUCTURES:
        return _same_structure(answer, gold, arbiter)
    return _leaf(answer, gold, arbiter)


def _same_structure(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    """Brackets and matrices item by item; a value against its definition ``x = value``."""
    if answer.op == gold.op:
        return answer.name == gold.name and ordered(answer.args, gold.args, arbiter)
    for one, other, swapped in ((answer, gold, False), (gold, answer, True)):
        defined = definition(one)
        if defined and other.op != "rel":
            value = defined[1]
            return same_tree(other, value, arbiter) if swapped else same_tree(value, other, arbiter)
    rows = _as_row(answer), _as_row(gold)
    if rows[0] and rows[1]:
        return ordered(rows[0], rows[1], arbiter)
    if "{}" in (answer.name, gold.name) and {answer.op, gold.op} == {"set", "bracket"}:
        return ordered(answer.args, gold.args, arbiter)  # braces that LaTeX does not print
    return False


def _as_row(node: Node) -> tuple[Node, ...]:
    """The entries of a vector: ``(1, 2)``, or a matrix of one row or one column."""
    if node.op == "matrix":
        rows = [row.args for row in node.args]
        return (
            rows[0] if len(rows) == 1 else tuple(r[0] for r in rows) if {len(r) for r in rows} == {1} else ()
        )
    return node.args if node.op == "bracket" and node.name == "()" else ()


def _scaled(part: Part, unit: Unit | None) -> Node:
    assert part.tree is not None
    factor = conversion(part.unit, unit)
    return part.tree if factor == 1 else Node("*", (number(factor), part.tree))


def _measured_as(part: Part, unit: Unit | None) -> Part:
    """The part in the light of the other's unit: ``2h`` beside hours, ``π/6`` beside degrees."""
    tree = part.tree
    if tree is None or unit is None or not unit.measure:
        return part
    if unit == DEGREES and (part.unit == RADIANS or (part.unit is None and _has_pi(tree))):
        return replace(part, tree=Node("*", (tree, Node("/", (number(180), symbol("pi"))))), unit=DEGREES)
    if part.unit is None and tree.op == "*" and len(tree.args) == 2 and tree.args[0].op == "num":
        named = letter_unit(tree.args[1])
        return (
            replace(part, tree=tree.args[0], unit=named) if named and named.measure == unit.measure else part
        )
    return part


def _has_pi(tree: Node) -> bool:
    return not symbols(tree) and any(node.name == "pi" for node in walk(tree))


def same_part(answer: Part, gold: Part, arbiter: Arbiter) -> bool:
    """Whether two blanks say the same: words by their text, mathematics by its meaning, units converted."""
    if answer.tree is None or gold.tree is None:
        return answer.tree is gold.tree and answer.text == gold.text
    answer, gold = _measured_as(answer, gold.unit), _measured_as(gold, answer.unit)
    return not contradict(answer.unit, gold.unit) and (
        same_tree(_scaled(answer, gold.unit), _scaled(gold, gold.unit), arbiter)
        or _same_share(answer, gold, arbiter)
    )


def _same_share(answer: Part, gold: Part, arbiter: Arbiter) -> bool:
    """50% is 0.5 too."""
    if not any(part.unit and part.unit.name == "%" for part in (answer, gold)) or answer.unit == gold.unit:
        return False
    sides = [
        Node("%", (p.tree,)) if p.unit and p.unit.name == "%" else p.tree for p in (answer, gold) if p.tree
    ]
    return _leaf(sides[0], sides[1], arbiter)


def _items(reading: Reading) -> list[Node]:
    """The elements of a reading that can be taken as a set."""
    trees = [part.tree for part in reading.parts if part.tree is not None]
    if len(trees) < len(reading.parts):
        return []
    return list(trees[0].args) if len(trees) == 1 and trees[0].op in ("set", "bracket") else trees


def _flat(reading: Reading) -> list[Node]:
    """The coordinates of all its points one after the other."""
    return [item for tree in _items(reading) for item in (tree.args if tree.op == "bracket" else (tree,))]


def _name(part: Part) -> Node | None:
    defined = definition(part.tree) if part.tree is not None else None
    return defined[0] if defined and symbols(defined[0]) else None


def _by_name(answer: Reading, gold: Reading) -> Reading:
    """The answer's blanks in the gold's order, where all of them are named and the names are the same."""
    names, wanted = [_name(part) for part in answer.parts], [_name(part) for part in gold.parts]
    if None in names or None in wanted or len(set(names)) < len(names) or set(names) != set(wanted):
        return answer
    return Reading(tuple(answer.parts[names.index(name)] for name in wanted), answer.ordered)


def _same_reading(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    if len(answer.parts) != len(gold.parts) and _same_solutions(answer, gold, arbiter):
        return True
    if not (answer.ordered and gold.ordered):
        return _same_unordered(answer, gold, arbiter)
    counts = len(answer.parts), len(gold.parts)
    if counts[0] == counts[1]:
        pairs = zip(_by_name(answer, gold).parts, gold.parts, strict=True)
        return all(same_part(a, g, arbiter) for a, g in pairs)
    if 1 not in counts:
        return _same_coordinates(answer, gold, arbiter)
    single = (answer if counts[0] == 1 else gold).parts[0].tree
    if single is None or single.op not in ("set", "bracket") or not _items(answer) or not _items(gold):
        return False
    return (same_set if single.op == "set" else ordered)(_items(answer), _items(gold), arbiter)


def _same_coordinates(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """``(5, 2), (7, 2)`` for ``p=5, q=2; p=7, q=2``."""
    first, second = _flat(answer), _flat(gold)
    grouped = {tree.op for tree in _items(answer)} == {"bracket"} or {t.op for t in _items(gold)} == {
        "bracket"
    }
    return grouped and bool(first and second) and ordered(first, second, arbiter)


def _same_unordered(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """Solution sets: unions of intervals, or values in any order."""
    unions = [union([p.tree for p in r.parts if p.tree is not None]) for r in (answer, gold)]
    if unions[0] and unions[1]:
        return same_intervals(unions[0], unions[1], arbiter)
    same_count = len(answer.parts) == len(gold.parts)
    if same_count and matched(answer.parts, gold.parts, lambda a, g: same_part(a, g, arbiter)):
        return True
    if len(answer.parts) == len(gold.parts) == 1:
        return False
    first, second = _items(answer), _items(gold)
    same = bool(first and second) and same_set(first, second, arbiter)
    return same or _same_coordinates(answer, gold, arbiter)


def _same_solutions(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """``x = ±2`` for ``x² = 4``: one side an equation in a letter, the other all its values."""
    for one, other in ((answer, gold), (gold, answer)):
        equation = one.parts[0].tree if len(one.parts) == 1 else None
        if equation is None or equation.op != "rel" or equation.name != "=" or definition(equation):
            continue
        names = symbols(equation)
        values = _named_values(other)
        if len(names) == 1 and len(values) == len(other.parts) and {name for name, _ in values} == names:
            sides = equation.args[0], equation.args[1]
            return arbiter.solves(sides, next(iter(names)), [value for _, value in values])
    return False


def _named_values(reading: Reading) -> list[tuple[str, Node]]:
    defined = [definition(part.tree) for part in reading.parts if part.tree is not None]
    return [(d[0].name.split("_")[0], d[1]) for d in defined if d and d[0].op == "sym"]


def same_answer(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """Whether the answer says the same as the gold answer or as one of its alternatives."""
    undecided = False
    pairs = [(a, g) for g in (gold, *gold.alternatives) for a in (answer, *answer.alternatives)]
    for one, reading in pairs:
        try:
            if _same_reading(one, reading, arbiter):
                return True
        except Undecided:
            undecided = True
    if undecided:
        raise Undecided
    return False
