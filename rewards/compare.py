"""Whether a reading of an answer says the same as a reading of the gold answer.

Structure is compared here (blanks, tuples, sets, relations, units); two expressions are compared by
``_leaf``: exact arithmetic, identical trees, certain difference in floating point, and only then sympy,
through the ``arbiter`` that the caller passes. The parent process passes one that raises ``Undecided``; a
worker process passes sympy's. Both run the same code, so a verdict does not depend on where it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

from rewards.numeric import surely_differ
from rewards.reading import Part, Reading
from rewards.regions import Interval, ascending, region, union
from rewards.tree import Node, exact, number, symbols
from rewards.units import Unit, contradict, conversion

_SYMMETRIC = frozenset(["=", "perp", "parallel", "!="])
_DEFINED = frozenset(["y", "f(x)", "g(x)", "h(x)"])
_MIN_DECIMALS, _MIN_DIGITS = 2, 3


class Undecided(Exception):
    """The comparison needs sympy."""


class Arbiter(Protocol):
    """What decides where the cheap paths cannot."""

    def equal(self, a: Node, b: Node) -> bool:
        """Whether two expressions are the same function of their symbols."""

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        """Whether two equations have the same solutions."""


def _decimals(node: Node) -> int:
    return _decimals(node.args[0]) if node.op == "neg" else node.decimals


def rounds_to(answer: Node, gold: Node, value: Fraction, wanted: Fraction) -> bool:
    """The rounding rule: a decimal that carries more digits than a decimal gold and rounds to it is right.

    The gold must have at least two decimals and three significant digits; nothing but a written decimal is
    ever rounded, so 1/3 is not 0.33 and no root is its decimal.
    """
    places = _decimals(gold)
    digits = len(str(abs(wanted.numerator * 10**places // wanted.denominator))) if places >= 0 else 0
    if places < _MIN_DECIMALS or digits < _MIN_DIGITS or _decimals(answer) <= places:
        return False
    return abs(value - wanted) * 2 * 10**places <= 1


def _leaf(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    value, wanted = exact(answer), exact(gold)
    if value is not None and wanted is not None:
        return value == wanted or rounds_to(answer, gold, value, wanted)
    if answer == gold:
        return True
    if surely_differ(answer, gold, symbols(answer) | symbols(gold)):
        return False
    return arbiter.equal(answer, gold)


def _ordered(answers: Sequence[Node], golds: Sequence[Node], arbiter: Arbiter) -> bool:
    return len(answers) == len(golds) and all(
        same_tree(a, g, arbiter) for a, g in zip(answers, golds, strict=True)
    )


def _matched(answers: Sequence[object], golds: Sequence[object], same: Callable[..., bool]) -> bool:
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
    return _matched(first, second, lambda a, g: same_tree(a, g, arbiter))


def _same_intervals(a: tuple[Interval, ...], b: tuple[Interval, ...], arbiter: Arbiter) -> bool:
    def same(x: Interval, y: Interval) -> bool:
        named = not x.name or not y.name or x.name == y.name
        return (
            named and x.closed == y.closed and _leaf(x.low, y.low, arbiter) and _leaf(x.high, y.high, arbiter)
        )

    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def definition(tree: Node) -> tuple[Node, Node] | None:
    """(name, value) of ``x = 3``, ``f(x) = 2x``, ``AC = 4 + 1 = 5``; None for any other equation.

    A chain of numbers alone, ``3·2 = 6``, is its last member under the name of its first.
    """
    if tree.op != "rel" or set(tree.name.split()) != {"="}:
        return None
    name, value = tree.args[0], tree.args[-1]
    letters = name.args if name.op == "*" else (name,)
    if not symbols(tree):
        return name, value
    if not all(letter.op == "sym" for letter in letters) or symbols(name) & symbols(value):
        return None
    return (name, value) if name.op == "sym" or not symbols(value) else None


def _same_relation(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    first, second = ascending(answer), ascending(gold)
    if first.name != second.name or len(first.args) != len(second.args):
        return False
    known, wanted = definition(first), definition(second)
    if known and wanted and {known[0].name, wanted[0].name} <= _DEFINED:
        return same_tree(known[1], wanted[1], arbiter)
    if first == second:
        return True
    if set(first.name.split()) <= _SYMMETRIC and len(first.args) == 2:
        return _same_symmetric(first, second, arbiter)
    return _ordered(first.args, second.args, arbiter)


def _same_symmetric(a: Node, b: Node, arbiter: Arbiter) -> bool:
    if a.args == b.args[::-1]:
        return True
    if a.name != "=":
        return _ordered(a.args, b.args, arbiter) or _ordered(a.args, b.args[::-1], arbiter)
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


_STRUCTURES = frozenset(["rel", "bracket", "set", "cup", "cap", "matrix"])


def same_tree(answer: Node, gold: Node, arbiter: Arbiter) -> bool:
    """Whether two trees, of expressions or of structures, say the same."""
    if answer == gold:
        return True
    ops = (answer.op, gold.op)
    intervals = region(answer), region(gold)
    if ops != ("bracket", "bracket") and intervals[0] and intervals[1]:
        return _same_intervals(intervals[0], intervals[1], arbiter)
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
        return answer.name == gold.name and _ordered(answer.args, gold.args, arbiter)
    for one, other, swapped in ((answer, gold, False), (gold, answer, True)):
        defined = definition(one)
        if defined and other.op != "rel":
            value = defined[1]
            return same_tree(other, value, arbiter) if swapped else same_tree(value, other, arbiter)
    return False


def _scaled(part: Part, unit: Unit | None) -> Node:
    assert part.tree is not None
    factor = conversion(part.unit, unit)
    return part.tree if factor == 1 else Node("*", (number(factor), part.tree))


def same_part(answer: Part, gold: Part, arbiter: Arbiter) -> bool:
    """Whether two blanks say the same: words by their text, mathematics by its meaning, units converted."""
    if answer.tree is None or gold.tree is None:
        return answer.tree is gold.tree and answer.text == gold.text
    if contradict(answer.unit, gold.unit):
        return False
    if same_tree(_scaled(answer, gold.unit), gold.tree, arbiter):
        return True
    return _same_share(answer, gold, arbiter)


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


def _same_reading(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    counts = len(answer.parts), len(gold.parts)
    if not (answer.ordered and gold.ordered):
        return _same_unordered(answer, gold, arbiter)
    if counts[0] == counts[1]:
        return all(same_part(a, g, arbiter) for a, g in zip(answer.parts, gold.parts, strict=True))
    if 1 not in counts:
        return False
    single = (answer if counts[0] == 1 else gold).parts[0].tree
    if single is None or single.op not in ("set", "bracket") or not _items(answer) or not _items(gold):
        return False
    return (same_set if single.op == "set" else _ordered)(_items(answer), _items(gold), arbiter)


def _same_unordered(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """Solution sets: unions of intervals, or values in any order."""
    unions = [union([p.tree for p in r.parts if p.tree is not None]) for r in (answer, gold)]
    if unions[0] and unions[1]:
        return _same_intervals(unions[0], unions[1], arbiter)
    if len(answer.parts) == len(gold.parts):
        return _matched(answer.parts, gold.parts, lambda a, g: same_part(a, g, arbiter))
    first, second = _items(answer), _items(gold)
    return bool(first and second) and same_set(first, second, arbiter)


def same_answer(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """Whether the answer says the same as the gold answer or as one of its alternatives."""
    undecided = False
    for reading in (gold, *gold.alternatives):
        try:
            if _same_reading(answer, reading, arbiter):
                return True
        except Undecided:
            undecided = True
    if undecided:
        raise Undecided
    return False
