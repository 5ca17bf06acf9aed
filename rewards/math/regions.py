"""Sets of real numbers given by several conditions: "x ≥ 0 and x ≠ 1", "x < 1 or x > 3", "x ≠ ±5"."""

from __future__ import annotations

from rewards.math.intervals import Interval, as_intervals, intersection, union_of_intervals
from rewards.math.tree import Node, symbols

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
