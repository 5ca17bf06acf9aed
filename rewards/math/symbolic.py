"""Symbolic equality with sympy. Called only in a worker process, or where the caller accepts no limits.

Trees are converted to sympy expressions node by node; sympy gets no text except the names of symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sympy

from rewards.math import precise
from rewards.math.bounds import Unreadable
from rewards.math.tree import Node, exact_value, walk

_DIGITS = 40
_FUNCTIONS: dict[str, Any] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec,
    "csc": sympy.csc, "arcsin": sympy.asin, "arccos": sympy.acos,
    "arctan": sympy.atan, "sinh": sympy.sinh, "cosh": sympy.cosh,
    "tanh": sympy.tanh, "abs": sympy.Abs, "!": sympy.factorial, "floor": sympy.floor, "ceil": sympy.ceiling,
    "binom": sympy.binomial, "log": sympy.log, "max": sympy.Max, "min": sympy.Min,
}  # fmt: skip
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}


def _power(base: Any, exponent: Any) -> Any:
    odd = exponent.is_Rational and exponent.q % 2 and exponent.q > 1
    if odd and base.is_number and base.is_negative:
        return (-1) ** exponent.p * sympy.Pow(-base, exponent)
    return sympy.Pow(base, exponent)


def to_sympy(node: Node) -> Any:
    """Return the tree as a sympy expression. Raises ``Unreadable`` if it is not an expression.

    Symbols are positive, so that sympy combines roots and logarithms; expressions that differ only for
    negative values have been distinguished before, by ``numeric.surely_differ``.
    """
    value = exact_value(node)
    if value is not None:
        return sympy.Rational(value.numerator, value.denominator)
    if node.op == "sym":
        return _CONSTANTS[node.name] if node.name in _CONSTANTS else sympy.Symbol(node.name, positive=True)
    args = [to_sympy(arg) for arg in node.args]
    if node.op in ("+", "*"):
        return (sympy.Add if node.op == "+" else sympy.Mul)(*args)
    if node.op in ("sum", "prod"):
        return _series(node, args)
    if node.op in _FUNCTIONS:
        return _FUNCTIONS[node.op](*args)
    return _operator(node.op, args)


def _series(node: Node, args: list[Any]) -> Any:
    index, first, last, body = args
    if any(
        n.op == "sym" and "_" in n.name and node.args[0].name in n.name.partition("_")[2] for n in walk(node)
    ):
        raise Unreadable("a sum of indexed names")
    series = sympy.Sum if node.op == "sum" else sympy.Product
    return series(body, (index, first, last)).doit()


def _operator(op: str, args: list[Any]) -> Any:
    if op == "neg":
        return -args[0]
    if op in ("/", ":") and len(args) == 2:
        return args[0] / args[1]
    if op == "^":
        return _power(args[0], args[1])
    if op == "root":
        return _power(args[0], 1 / args[1])
    if op == "deg":
        return args[0] * sympy.pi / 180
    if op == "%":
        return args[0] / 100
    raise Unreadable(f"{op!r} inside an expression")


def is_zero(expression: Any) -> bool:
    """Return whether an expression is zero: by expansion, by simplification, or to 40 digits."""
    if expression == 0 or sympy.expand(expression) == 0:
        return True
    if not expression.free_symbols and not _small(expression):
        return False
    simplified = sympy.simplify(expression)
    if simplified == 0 or sympy.expand_trig(sympy.expand(simplified)) == 0:
        return True
    return bool(not simplified.free_symbols and _small(simplified))


def _small(expression: Any) -> bool:
    """Return whether a constant is zero to 40 digits relative to its terms, with guard digits."""
    value = expression.evalf(_DIGITS, maxn=400)
    if not value.is_number or value.has(sympy.nan, sympy.zoo):
        return False
    scale = max(abs(term.evalf(15)) for term in sympy.Add.make_args(expression))
    return bool(abs(value) < scale * sympy.Float(10) ** (5 - _DIGITS))


@lru_cache(maxsize=256)
def _difference(a: Node, b: Node) -> Any:
    difference = to_sympy(a) - to_sympy(b)
    if difference.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        raise Unreadable("an expression without a finite value")
    return difference


def _minus(a: Node, b: Node) -> Node:
    return Node("+", (a, Node("neg", (b,))))


def equal(a: Node, b: Node) -> bool:
    """Return whether two expressions are the same function of their symbols.

    By their values (``rewards.math.precise``); by sympy only where these cannot be computed.
    """
    try:
        return precise.same_function(a, b)
    except precise.Unsupported:
        return is_zero(_difference(a, b))


def same_equation(a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
    """Return whether two equations are equivalent: their differences are constant multiples of each other.

    Denominators are cleared first, so ``y = 2/x`` and ``xy = 2`` are one equation. An identity equals only an
    identity with the same sides; an equation that is defined nowhere equals none.
    """
    try:
        factor = precise.ratio(_minus(*a), _minus(*b))
    except precise.Unsupported:
        return _same_numerators(a, b)
    if factor is None:
        return False
    if factor == "zero":
        return _same_sides(a, b) or _same_sides(a, b[::-1])
    if factor != "varies":
        return True
    divided = any(node.op in ("/", "^", ":") for side in (*a, *b) for node in walk(side))
    return divided and _same_numerators(a, b)


def _same_sides(a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
    """Return whether the sides of two identities are equal one to one, and sums where the others are sums."""
    return all(equal(x, y) and (x.op == "+") == (y.op == "+") for x, y in zip(a, b, strict=True))


def _same_numerators(a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
    first, second = (sympy.fraction(sympy.together(_difference(*sides)))[0] for sides in (a, b))
    if not (first.free_symbols and first.free_symbols == second.free_symbols):
        return False
    if sympy.expand(first) == 0 or sympy.expand(second) == 0:
        return False
    quotient = sympy.simplify(first / second)
    return bool(not quotient.free_symbols and quotient.is_finite and quotient.is_nonzero)


def same_inequality(a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
    """Return whether the differences of both pairs of sides are positive multiples of each other."""
    factor = precise.ratio(_minus(*a), _minus(*b))
    if factor is None or isinstance(factor, str):
        return False
    return bool(factor.imag == 0 and factor.real > 0)


def solves(equation: tuple[Node, Node], name: str, values: Sequence[Node]) -> bool:
    """Return whether ``values`` are exactly the real solutions of a polynomial equation in ``name``."""
    numerator = sympy.fraction(sympy.together(_difference(*equation)))[0]
    unknown = sympy.Symbol(name, positive=True)
    free = sympy.Symbol(name, real=True)
    try:
        polynomial = sympy.Poly(numerator.subs(unknown, free), free)
    except sympy.PolynomialError:
        return False
    roots = sympy.roots(polynomial)
    if sum(roots.values()) != polynomial.degree():
        return False
    real, given = [root for root in roots if root.is_real], [to_sympy(value) for value in values]
    return all(any(is_zero(a - b) for b in given) for a in real) and all(
        any(is_zero(a - b) for b in real) for a in given
    )
