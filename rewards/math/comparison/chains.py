"""Chains of equalities: the value that ``AC = 4 + 1 = 5 ≈ 4.99`` gives, and whether the chain is true."""

from __future__ import annotations

import itertools
from fractions import Fraction

from rewards.math.numeric import evaluate
from rewards.math.tree import Node, exact_value, symbols, walk

_REAL = 1e-9
_SAFETY = 64
_ROUGH = Fraction(1, 100)


def is_name(node: Node) -> bool:
    """Return whether this can name a value: a letter, ``AC``, ``(p, q)``, or a ratio or length of names."""
    if node.op in ("*", "bracket", "/", ":"):
        return all(is_name(arg) for arg in node.args)
    return node.op == "sym" or (node.op == "abs" and node.args[0].op == "*" and is_name(node.args[0]))


def definition(tree: Node) -> tuple[Node, Node] | None:
    """Return (name, value) of ``x = 3``, ``3 = x``, ``(p, q) = (3, 2)``, ``AC = 4 + 1 = 5 ≈ 4.9``; else None.

    The value is the last member that does not approximate an earlier one. In a chain of numbers, ``3·2 = 6``,
    the first member is the name, as is ``m + n`` in ``m + n = 256 + 37 = 293``.
    """
    names = tree.name.split() if tree.op == "rel" else []
    if not names or not set(names) <= {"=", "~"}:
        return None
    last = names.index("~") if "~" in names[1:] and names[0] == "=" else len(names)
    name, value = tree.args[0], tree.args[last]
    if not symbols(tree):
        return name, value
    if len(tree.args) > 2 and symbols(name) and not any(symbols(arg) for arg in tree.args[1:]):
        return name, value
    if len(tree.args) == 2 and is_name(value) and symbols(value) and not symbols(name):
        name, value = value, name
    if not is_name(name) or symbols(name) & symbols(value):
        return None
    return (name, value) if name.op == "sym" or not symbols(value) else None


def values(tree: Node) -> list[Node]:
    """Return the values that a definition gives, an exact one before its approximation; else nothing."""
    defined = definition(tree)
    if defined is None:
        return []
    members = [arg for arg in tree.args if arg is not defined[0]] if symbols(defined[0]) else list(tree.args)
    approximate = [
        members[i] for i in range(len(members)) if not symbols(members[i]) and members[i] is not defined[1]
    ]
    if "~" not in tree.name.split():
        return [defined[1]]
    return [defined[1], *approximate]


def is_false(tree: Node) -> bool:
    """Return whether a relation of numbers is surely false: ``2 + 2 = 5``, ``x = 3 = 2``, ``3 ≈ 2``."""
    names = tree.name.split() if tree.op == "rel" else []
    if not names or not set(names) <= {"=", "~", "!=", "<", "<=", ">", ">="}:
        return False
    if any(_divides_by_zero(arg) for arg in tree.args if not symbols(arg)):
        return True
    pairs = zip(itertools.pairwise(tree.args), names, strict=True)
    return any(_fails(a, b, name) for (a, b), name in pairs if not (symbols(a) or symbols(b)))


def _divides_by_zero(tree: Node) -> bool:
    return any(node.op == "/" and exact_value(node.args[1]) == 0 for node in walk(tree))


def _fails(a: Node, b: Node, name: str) -> bool:
    first, second = exact_value(a), exact_value(b)
    if first is not None and second is not None:
        difference, slack, size = first - second, Fraction(0), max(abs(first), abs(second))
    else:
        left, right = evaluate(a, {}), evaluate(b, {})
        if left is None or right is None or abs(left.z.imag) + abs(right.z.imag) > _REAL:
            return False
        difference = Fraction(left.z.real) - Fraction(right.z.real)
        slack = Fraction(_SAFETY * (left.error + right.error))
        size = Fraction(max(abs(left.z), abs(right.z)))
    if name in ("=", "~"):
        # "= 0.33" after 1/3 is a rounding that people write with "=".
        rough = size * _ROUGH if name == "~" else Fraction(0)
        return abs(difference) > max(_rounding(a, b), rough) + slack
    if name == "!=":
        return abs(difference) <= slack
    if name.startswith(">"):
        difference = -difference
    return difference > slack or (len(name) == 1 and difference == slack == 0)


def _rounding(a: Node, b: Node) -> Fraction:
    """Return half a unit of the last of the more decimals of two numbers; 0 without decimals."""
    decimals = max(a.decimals, b.decimals)
    return Fraction(1, 2 * 10**decimals) if decimals >= 1 else Fraction(0)
