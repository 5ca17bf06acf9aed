"""Sets of real numbers: inequalities, intervals and unions in one form, so that they can be compared.

Several conditions, "x ≥ 0 and x ≠ 1", "x < 1 or x > 3", "x ≠ ±5", are one set.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards.math.numeric import evaluate
from rewards.math.tree import Node, symbol, symbols

_INFINITY = symbol("oo")
_MINUS_INFINITY = Node("neg", (_INFINITY,))
_FLIPPED = {">": "<", ">=": "<="}


@dataclass(frozen=True)
class Interval:
    """Interval from ``low`` to ``high``.

    Attributes:
        low: the left end.
        high: the right end.
        closed: whether each end belongs to it.
        name: the variable, or "" if there is none.
    """

    low: Node
    high: Node
    closed: tuple[bool, bool]
    name: str = ""


def ascending(tree: Node) -> Node:
    """Return the tree with a chain of ``>`` rewritten as a chain of ``<``."""
    names = tree.name.split()
    if names and all(name in _FLIPPED for name in names):
        flipped = " ".join(_FLIPPED[name] for name in reversed(names))
        return Node("rel", tree.args[::-1], name=flipped)
    return tree


def _from_chain(tree: Node) -> Interval | None:
    tree = ascending(tree)
    sides, names = tree.args, tree.name.split()
    if not names or any(name not in ("<", "<=") for name in names) or len(sides) > 3:
        return None
    middle = [side for side in sides if side.op == "sym" and side.name not in ("pi", "e", "i", "oo")]
    if len(middle) != 1 or sum(bool(symbols(side)) for side in sides) != 1:
        return None
    name = "" if middle[0].name == "?" else middle[0].name
    if len(sides) == 3:
        closed = (names[0] == "<=", names[1] == "<=")
        return Interval(sides[0], sides[2], closed, name) if sides[1] is middle[0] else None
    if sides[0] is middle[0]:
        return Interval(_MINUS_INFINITY, sides[1], (False, names[0] == "<="), name)
    return Interval(sides[0], _INFINITY, (names[0] == "<=", False), name)


def _from_absolute(tree: Node) -> tuple[Interval, ...] | None:
    """Return ``1 ≤ |x| ≤ 2`` as its two halves, ``|x| < 3`` as one interval; else None."""
    bars = [arg for arg in tree.args if arg.op == "abs" and arg.args[0].op == "sym"]
    if len(bars) != 1:
        return None
    sides = tuple(arg.args[0] if arg is bars[0] else arg for arg in tree.args)
    outer = _from_chain(Node("rel", sides, name=tree.name))
    if outer is None:
        return None
    if outer.low == _MINUS_INFINITY:
        closed = outer.closed[1]
        return (Interval(Node("neg", (outer.high,)), outer.high, (closed, closed), outer.name),)
    left = Interval(_negated(outer.high), _negated(outer.low), outer.closed[::-1], outer.name)
    return (left, outer)


def _negated(node: Node) -> Node:
    return Node("neg", (node,))


def _from_bracket(tree: Node) -> Interval | None:
    if len(tree.args) != 2 or any(symbols(arg) - {"oo"} for arg in tree.args):
        return None
    return Interval(tree.args[0], tree.args[1], (tree.name[0] == "[", tree.name[-1] == "]"))


def _low(interval: Interval) -> float:
    value = evaluate(interval.low, {"oo": complex(1e300)})
    return value.z.real if value else 0.0


def _high(interval: Interval) -> float:
    return _low(Interval(interval.high, interval.high, (True, True)))


def _merged(intervals: list[Interval]) -> tuple[Interval, ...]:
    """Join overlapping and adjacent intervals: ``(1, 2] ∪ [2, 3)``, ``(1, 2.5) ∪ (2, 3)`` are ``(1, 3)``."""
    merged: list[Interval] = []
    for one in intervals:
        last = merged[-1] if merged else None
        if last is None or last.name != one.name or not _overlap(last, one):
            merged.append(one)
        elif _high(one) > _high(last) or last.high == one.high:
            closed = one.closed[1] or (last.high == one.high and last.closed[1])
            merged[-1] = Interval(last.low, one.high, (last.closed[0], closed), last.name)
    return tuple(merged)


def _overlap(left: Interval, right: Interval) -> bool:
    if left.high == right.low:
        return left.closed[1] or right.closed[0]
    return _high(left) > _low(right) + 1e-9 * (1 + abs(_low(right)))


def _split(intervals: tuple[Interval, ...], point: Node) -> tuple[Interval, ...]:
    """Return the intervals without a point, which splits the interval that contains it."""
    place = _low(Interval(point, point, (True, True)))
    out: list[Interval] = []
    for one in intervals:
        if _low(one) < place < _high(one):
            out.append(Interval(one.low, point, (one.closed[0], False), one.name))
            out.append(Interval(point, one.high, (False, one.closed[1]), one.name))
        else:
            out.append(one)
    return tuple(out)


def _without_points(intervals: tuple[Interval, ...] | None, points: Node) -> tuple[Interval, ...] | None:
    if intervals is None or points.op != "set" or any(symbols(point) for point in points.args):
        return None
    for point in points.args:
        intervals = _split(intervals, point)
    return intervals


def as_intervals(tree: Node) -> tuple[Interval, ...] | None:
    """Return the tree as disjoint intervals from left to right, or None if it is no set of real numbers."""
    if tree.op == "rel" and tree.name == "in":
        inner = as_intervals(tree.args[1])
        name = tree.args[0].name
        return inner and tuple(Interval(i.low, i.high, i.closed, name) for i in inner)
    if tree.op == "cup":
        members = [as_intervals(arg) for arg in tree.args]
        joined = [interval for member in members if member for interval in member]
        return _merged(sorted(joined, key=_low)) if all(members) else None
    if tree.op == "setminus":
        return _without_points(as_intervals(tree.args[0]), tree.args[1])
    if tree.op == "rel" and tree.name == "!=" and tree.args[0].op == "sym" and not symbols(tree.args[1]):
        everything = Interval(_MINUS_INFINITY, _INFINITY, (False, False), tree.args[0].name)
        return _split((everything,), tree.args[1])
    mirrored = _from_absolute(tree) if tree.op == "rel" else None
    if mirrored:
        return mirrored
    interval = _from_chain(tree) if tree.op == "rel" else None
    interval = _from_bracket(tree) if tree.op == "bracket" else interval
    return (interval,) if interval else None


def union_of_intervals(trees: list[Node]) -> tuple[Interval, ...] | None:
    """Return the union of several sets as intervals, or None if one is no set of real numbers."""
    return as_intervals(Node("cup", tuple(trees))) if trees else None


def intersection(a: tuple[Interval, ...], b: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """Return the common part of two lists of disjoint intervals, from left to right."""
    common = []
    for x in a:
        for y in b:
            low, low_closed = max(((x.low, x.closed[0]), (y.low, y.closed[0])), key=_low_key)
            high, high_closed = min(((x.high, x.closed[1]), (y.high, y.closed[1])), key=_high_key)
            one = Interval(low, high, (low_closed, high_closed), x.name or y.name)
            if _low(one) < _high(one) or (_low(one) == _high(one) and low_closed and high_closed):
                common.append(one)
    return tuple(common)


def _position(end: Node) -> float:
    return _low(Interval(end, end, (True, True)))


def _low_key(end: tuple[Node, bool]) -> tuple[float, bool]:
    return _position(end[0]), not end[1]


def _high_key(end: tuple[Node, bool]) -> tuple[float, bool]:
    return _position(end[0]), end[1]


_CONDITIONS = frozenset(["<", "<=", ">", ">=", "!=", "in"])


def _is_condition(tree: Node) -> bool:
    return tree.op == "rel" and set(tree.name.split()) <= _CONDITIONS


def _spread(trees: list[Node]) -> list[Node]:
    """Return ``x ≠ 0, 1`` as ``x ≠ 0, x ≠ 1``."""
    first = trees[0]
    if first.op != "rel" or first.name != "!=" or first.args[0].op != "sym":
        return trees
    return [
        Node("rel", (first.args[0], tree), name="!=") if tree.op != "rel" and not symbols(tree) else tree
        for tree in trees
    ]


def region(trees: list[Node], joined: str) -> tuple[Interval, ...] | None:
    """Return the set of numbers that conditions on one variable describe, or None for other trees.

    Conditions that "or" joins unite. Those that "and", a comma or ± joins intersect; after a comma they unite
    if their intersection is empty: ``x < 1, x > 3``.

    Args:
        trees: the conditions, or a single one.
        joined: "or", "and", "pm" (from a ±) or "" (a comma).
    """
    trees = _spread(trees)
    if not trees or not any(_is_condition(tree) for tree in trees):
        return None
    parts = [as_intervals(tree) for tree in trees]
    known = [part for part in parts if part]
    if len(known) < len(parts) or len({one.name for part in known for one in part} - {""}) > 1:
        return None
    if len(known) == 1:
        return known[0]
    if joined == "or":
        return union_of_intervals(trees)
    common = known[0]
    for part in known[1:]:
        common = intersection(common, part)
    if common or joined or any(tree.name == "!=" for tree in trees):
        return common or None
    return union_of_intervals(trees)
