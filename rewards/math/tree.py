"""Expression tree, and exact arithmetic on it.

Trees are parsed from text by ``rewards.math.parser`` and never contain code: numbers are fractions, names are
strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from rewards.math.bounds import MAX_BITS, Refused, check_factorial, check_power


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: ``num``, ``sym``, ``+``, ``*``, ``/``, ``neg``, ``^``, ``root`` (radicand, degree), ``abs``,
            ``!``, ``binom``, ``floor``, ``ceil``, ``log`` (argument, base), ``deg``, ``%``, ``pm``, ``:``,
            ``rel``, ``cup``, ``cap``, ``bracket``, ``set``, ``matrix`` (rows are ``bracket``), or a
            function's name.
        args: the operands, in order.
        value: the number of a ``num``.
        name: of a ``sym``; the delimiters of a ``bracket`` (``(]``); the relations of a ``rel``, by spaces.
        decimals: of a ``num``: the number of digits after the point; -1 if it was not a decimal.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Fraction | None = None
    name: str = ""
    decimals: int = -1


def number(value: Fraction | int, decimals: int = -1) -> Node:
    """Return a leaf with an exact number."""
    return Node("num", value=Fraction(value), decimals=decimals)


def symbol(name: str) -> Node:
    """Return a leaf with a name."""
    return Node("sym", name=name)


def walk(node: Node) -> Iterator[Node]:
    """Yield every node of the tree, the root first."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.args)


def symbols(node: Node) -> frozenset[str]:
    """Return the names in the tree, without the constants e, i and pi."""
    return frozenset(n.name for n in walk(node) if n.op == "sym" and n.name not in ("e", "i", "pi"))


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise Refused(f"a number of {_bits(value):,} bits, at most {MAX_BITS:,} are read")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1 or (base == 0 and exponent <= 0):
        return None
    if base in (0, 1, -1):
        return base if exponent.numerator % 2 or base == 0 else abs(base)
    check_power(_bits(base), exponent.numerator)
    return base**exponent.numerator


def _root(radicand: Fraction, degree: Fraction) -> Fraction | None:
    """Return a rational square root, or None; other roots are left to sympy."""
    if degree != 2 or radicand < 0:
        return None
    top, bottom = math.isqrt(radicand.numerator), math.isqrt(radicand.denominator)
    root = Fraction(top, bottom)
    return root if root * root == radicand else None


def _factorial(n: Fraction) -> Fraction | None:
    if n.denominator != 1 or n < 0:
        return None
    check_factorial(n.numerator)
    return Fraction(math.factorial(n.numerator))


def _binomial(n: Fraction, k: Fraction) -> Fraction | None:
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        return None
    check_factorial(n.numerator)
    return Fraction(math.comb(n.numerator, k.numerator))


def _apply(op: str, args: list[Fraction]) -> Fraction | None:
    a = args[0]
    if op == "+":
        return sum(args, Fraction(0))
    if op == "*":
        return math.prod(args, start=Fraction(1))
    if op in ("/", ":") and len(args) == 2:
        return a / args[1] if args[1] else None
    if op in ("gcd", "lcm"):
        whole = [int(arg) for arg in args if arg.denominator == 1]
        function = math.gcd if op == "gcd" else math.lcm
        return Fraction(function(*whole)) if len(whole) == len(args) else None
    operations: dict[str, Callable[[], Fraction | None]] = {
        "neg": lambda: -a,
        "%": lambda: a / 100,
        "abs": lambda: abs(a),
        "floor": lambda: Fraction(math.floor(a)),
        "ceil": lambda: Fraction(math.ceil(a)),
        "^": lambda: _power(a, args[1]),
        "root": lambda: _root(a, args[1]),
        "!": lambda: _factorial(a),
        "binom": lambda: _binomial(a, args[1]),
    }
    return operations[op]() if op in operations else None


def exact_value(node: Node) -> Fraction | None:
    """Return the tree's value if it is rational and found by simple arithmetic, else None.

    Raises ``Refused`` if a subtree exceeds the bounds: a tree that passes can be given to sympy.
    """
    if node.op == "num":
        return node.value
    args = [exact_value(arg) for arg in node.args]
    known = [arg for arg in args if arg is not None]
    if not known or len(known) < len(args):
        return None
    value = _apply(node.op, known)
    return None if value is None else _bounded(value)


def canonical(node: Node) -> Node:
    """Return the tree with sorted terms and factors, equal for trees that differ only in their order."""
    args = tuple(canonical(arg) for arg in node.args)
    if node.op in ("+", "*") and not any(arg.op == "matrix" for arg in args):
        args = tuple(sorted(args, key=repr))
    return Node(node.op, args, node.value, node.name, node.decimals)
