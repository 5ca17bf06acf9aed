"""Floating-point evaluation with error bounds, which can prove that two trees differ.

Most wrong answers differ widely from the gold answer. Evaluation at a few fixed points rejects them in
microseconds, and only sides that agree there are left to sympy. Each value has a first-order bound of its
rounding error, so that cancellation is never mistaken for a difference.
"""

from __future__ import annotations

import cmath
import math
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

from rewards.math.tree import Node, exact_value

_UNIT = 2.0**-52
# Names (by rank) that are negative at each point: none, none, all, every other, the others.
_SIGNS: tuple[Callable[[int], bool], ...] = (
    lambda rank: False,
    lambda rank: False,
    lambda rank: True,
    lambda rank: rank % 2 == 0,
    lambda rank: rank % 2 == 1,
)
_SAFETY = 64.0
_TINY = 1e-280
_KNOWN_DIGITS = 9


class Value(NamedTuple):
    """A complex number and a bound of its absolute error."""

    z: complex
    error: float


class Undefined(ArithmeticError):
    """The tree has no value at this point, or none that floating point can represent."""


def _rounded(z: complex, error: float) -> Value:
    if cmath.isnan(z) or cmath.isinf(z) or not math.isfinite(error):
        raise Undefined
    if z != 0 and abs(z) < _TINY:
        raise Undefined  # the digits are lost in underflow
    return Value(z, error + _UNIT * abs(z))


def _product(a: Value, b: Value) -> Value:
    if a.z * b.z == 0 and a.z != 0 and b.z != 0:
        raise Undefined
    return _rounded(a.z * b.z, abs(a.z) * b.error + abs(b.z) * a.error)


def _quotient(a: Value, b: Value) -> Value:
    if abs(b.z) <= _SAFETY * b.error:
        raise Undefined
    ratio = a.z / b.z
    return _rounded(ratio, (a.error + abs(ratio) * b.error) / abs(b.z))


def _power(base: Value, exponent: Value) -> Value:
    if abs(base.z) <= _SAFETY * base.error:
        raise Undefined
    z = base.z**exponent.z
    if z == 0:
        raise Undefined
    slope = abs(z) * (abs(exponent.z) / abs(base.z) * base.error + abs(cmath.log(base.z)) * exponent.error)
    return _rounded(z, slope + 8 * _UNIT * abs(z) * (1 + abs(exponent.z)))


def _real_odd_root(base: Value, top: int, bottom: int) -> Value:
    """Return the real value of a negative number to the power top/bottom, bottom odd."""
    size = _power(Value(-base.z, base.error), Value(top / bottom, _UNIT))
    return Value(-size.z if top % 2 else size.z, size.error)


def _evaluate_power(node: Node, point: Mapping[str, complex]) -> Value:
    base, exponent = (_evaluate(arg, point) for arg in node.args)
    # A negated number has the imaginary part -0.0, on whose other side the root has the other sign.
    base = Value(complex(base.z.real, base.z.imag + 0.0), base.error)
    ratio = exact_value(node.args[1])
    if node.op == "root":
        ratio, exponent = (1 / ratio if ratio else None), _quotient(Value(1, 0.0), exponent)
    if ratio is not None and ratio.denominator % 2 and base.z.imag == 0 and base.z.real < 0:
        return _real_odd_root(base, ratio.numerator, ratio.denominator)
    value = _power(base, exponent)
    if point and _negative(base) and abs(value.z.imag) > _SAFETY * value.error:
        raise Undefined
    return value


def _negative(value: Value) -> bool:
    return value.z.imag == 0 and value.z.real < 0


def _apply_function(
    function: Callable[[complex], complex], slope: Callable[[complex], complex], a: Value
) -> Value:
    z = function(a.z)
    return _rounded(z, abs(slope(a.z)) * a.error + 8 * _UNIT * abs(z))


_Function = tuple[Callable[[complex], complex], Callable[[complex], complex]]
_FUNCTIONS: dict[str, _Function] = {
    "sin": (cmath.sin, cmath.cos),
    "cos": (cmath.cos, cmath.sin),
    "tan": (cmath.tan, lambda z: 1 / cmath.cos(z) ** 2),
    "cot": (lambda z: 1 / cmath.tan(z), lambda z: 1 / cmath.sin(z) ** 2),
    "sec": (lambda z: 1 / cmath.cos(z), lambda z: cmath.sin(z) / cmath.cos(z) ** 2),
    "csc": (lambda z: 1 / cmath.sin(z), lambda z: cmath.cos(z) / cmath.sin(z) ** 2),
    "arcsin": (cmath.asin, lambda z: 1 / cmath.sqrt(1 - z * z)),
    "arccos": (cmath.acos, lambda z: 1 / cmath.sqrt(1 - z * z)),
    "arctan": (cmath.atan, lambda z: 1 / (1 + z * z)),
    "sinh": (cmath.sinh, cmath.cosh),
    "cosh": (cmath.cosh, cmath.sinh),
    "tanh": (cmath.tanh, lambda z: 1 / cmath.cosh(z) ** 2),
    "abs": (abs, lambda z: 1.0),
    "ln": (cmath.log, lambda z: 1 / z),
}
_CONSTANTS = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}


def _evaluate_leaf(node: Node, point: Mapping[str, complex]) -> Value:
    if node.value is not None:
        if node.value and not float(node.value):
            raise Undefined
        return _rounded(complex(float(node.value)), 0.0)
    z = _CONSTANTS.get(node.name, point.get(node.name))
    if z is None:
        raise Undefined
    return _rounded(z, 0.0)


def _evaluate(node: Node, point: Mapping[str, complex]) -> Value:
    if node.op in ("num", "sym"):
        return _evaluate_leaf(node, point)
    if node.op in ("^", "root"):
        return _evaluate_power(node, point)
    args = [_evaluate(arg, point) for arg in node.args]
    if node.op == "+":
        return _rounded(
            sum(a.z for a in args), sum(a.error for a in args) + _UNIT * sum(abs(a.z) for a in args)
        )
    if node.op == "*":
        value = args[0]
        for factor in args[1:]:
            value = _product(value, factor)
        return value
    if node.op in ("/", ":") and len(args) == 2:
        return _quotient(args[0], args[1])
    if node.op == "log":
        if point and any(_negative(a) for a in args):
            raise Undefined
        base, argument = (_apply_function(*_FUNCTIONS["ln"], a) for a in (args[1], args[0]))
        return _quotient(argument, base)
    return _unary(node.op, args[0])


def _unary(op: str, a: Value) -> Value:
    if op == "neg":
        return Value(-a.z, a.error)
    if op == "deg":
        return _product(a, Value(math.pi / 180, _UNIT))
    if op == "%":
        return _product(a, Value(0.01, _UNIT))
    if op not in _FUNCTIONS:
        raise Undefined
    return _apply_function(*_FUNCTIONS[op], a)


def evaluate(node: Node, point: Mapping[str, complex]) -> Value | None:
    """Return the tree's value and error bound at ``point`` (values by name); None if undefined."""
    try:
        return _evaluate(node, point)
    except (ArithmeticError, ValueError, IndexError):
        return None


def sample_points(names: frozenset[str]) -> list[dict[str, complex]]:
    """Return fixed pseudo-random points, the same in every process; later ones have mixed signs."""
    if not names:
        return [{}]
    made: list[dict[str, complex]] = []
    for k, negative in enumerate(_SIGNS):
        made.append({})
        for rank, name in enumerate(sorted(names)):
            size = random.Random(f"{name}/{k}").uniform(0.4, 2.6)
            made[-1][name] = complex(-size if negative(rank) else size)
    return made


def surely_differ(a: Node, b: Node, names: frozenset[str]) -> bool:
    """Return whether the trees' values at some point differ by far more than their rounding errors.

    Names are real numbers. A point at which a root or logarithm of a negative number occurs is skipped, as
    the expression is not defined there: √a·√b is √(ab).
    """
    for point in sample_points(names):
        left, right = evaluate(a, point), evaluate(b, point)
        if left is None or right is None:
            continue
        if abs(left.z - right.z) > _SAFETY * (left.error + right.error) + 1e-300:
            return True
    return False


def close_to(tree: Node, wanted: Fraction, places: int) -> bool:
    """Return whether a constant, rounded to ``places`` decimals, is ``wanted``, within error bounds."""
    value = evaluate(tree, {})
    if value is None or abs(value.z.imag) > _SAFETY * value.error:
        return False
    slack = Fraction(_SAFETY * value.error)  # a fraction, as the gold may be too large for a float
    if slack > abs(wanted) / 10**_KNOWN_DIGITS:
        return False  # near a pole, where the bound would hold any number
    return abs(Fraction(value.z.real) - wanted) <= Fraction(1, 2 * 10**places) + slack
