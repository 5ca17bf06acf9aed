"""Comparison of two items of answers: words by text, mathematics by meaning, with units converted."""

from __future__ import annotations

from dataclasses import replace

from rewards.math.amounts.quantities import letter_unit
from rewards.math.amounts.units import DEGREES, RADIANS, Conversion, conversions, is_percent
from rewards.math.bounds import Unreadable
from rewards.math.comparison.chains import definition, is_false
from rewards.math.comparison.trees import SymbolicBackend, same_expression, same_tree
from rewards.math.parser import parse
from rewards.math.read import AnswerItem
from rewards.math.tree import Node, number, symbol, symbols, walk


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
    return same_expression(sides[0], sides[1], backend)
