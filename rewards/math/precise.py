"""Values of expression trees to many digits, by which identities are decided.

Two expressions that agree to 100 digits at points of every sign pattern, wherever both are defined, are taken
as equal; constants have to agree to 400 digits. A denominator that is zero to these digits leaves an
expression undefined: what is defined nowhere equals nothing.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath

from rewards.math.bounds import Unreadable
from rewards.math.tree import Node, exact_value, symbols

_DIGITS, _AGREE = 130, 100
_CONSTANT_DIGITS, _CONSTANT_AGREE = 450, 400
_MIN_POINTS = 5
_MAX_NAMES_FOR_ALL_SIGNS = 3
_MAX_LOG = 10**6
_MAX_TERMS = 2_000


class Undefined(ArithmeticError):
    """The expression has no value at this point."""


class Unsupported(Unreadable):
    """The expression contains an operation that this module does not evaluate."""


def _tiny(z: Any) -> bool:
    return bool(abs(z) < mpmath.mpf(10) ** (-(mpmath.mp.dps * 2 // 3)))


def _divide(a: Any, b: Any) -> Any:
    if _tiny(b):
        raise Undefined
    return a / b


def _log(a: Any, real: bool) -> Any:
    if _tiny(a) or (real and mpmath.im(a) == 0 and mpmath.re(a) < 0):
        raise Undefined
    return mpmath.log(a)


def _power(base: Any, exponent: Any, ratio: Fraction | None, real: bool) -> Any:
    if _tiny(base):
        if mpmath.re(exponent) <= 0 or _tiny(exponent):
            raise Undefined
        return mpmath.mpf(0)
    if abs(exponent) * (abs(mpmath.log(abs(base))) + 1) > _MAX_LOG:
        raise Undefined
    negative = mpmath.im(base) == 0 and mpmath.re(base) < 0
    if negative and ratio is not None and ratio.denominator % 2:
        size = mpmath.power(-base, mpmath.mpf(ratio.numerator) / ratio.denominator)
        return -size if ratio.numerator % 2 else size
    if negative and real:
        raise Undefined
    return mpmath.power(base, exponent)


def _over(function: Callable[[Any], Any], pole: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that is undefined where ``pole`` is zero."""

    def value(z: Any) -> Any:
        if _tiny(pole(z)):
            raise Undefined
        return function(z)

    return value


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": _over(mpmath.tan, mpmath.cos),
    "cot": _over(mpmath.cot, mpmath.sin), "sec": _over(mpmath.sec, mpmath.cos),
    "csc": _over(mpmath.csc, mpmath.sin), "arcsin": mpmath.asin, "arccos": mpmath.acos,
    "arctan": mpmath.atan, "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh, "abs": abs,
    "neg": lambda z: -z, "%": lambda z: z / 100, "deg": lambda z: z * mpmath.pi / 180,
}  # fmt: skip
_REAL: dict[str, Callable[..., Any]] = {
    "floor": mpmath.floor, "ceil": mpmath.ceil, "max": max, "min": min,
}  # fmt: skip
_BOUNDED = frozenset(["arcsin", "arccos"])


def _real(z: Any) -> Any:
    if abs(mpmath.im(z)) > 0:
        raise Undefined
    return mpmath.re(z)


def _leaf(node: Node, point: Mapping[str, Any]) -> Any:
    if node.value is not None:
        return mpmath.mpf(node.value.numerator) / node.value.denominator
    if node.name in point:
        return point[node.name]
    constants = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1)}
    if node.name not in constants:
        raise Unsupported(f"no value of {node.name}")
    return +constants[node.name]


def _series(node: Node, point: Mapping[str, Any]) -> Any:
    index, first, last, body = node.args
    start, stop = exact_value(first), exact_value(last)
    if start is None or stop is None or start.denominator * stop.denominator != 1:
        raise Unsupported("a sum without whole limits")
    if stop - start > _MAX_TERMS:
        raise Unsupported("a sum of too many terms")
    total = mpmath.mpf(0 if node.op == "sum" else 1)
    for k in range(int(start), int(stop) + 1):
        term = _evaluate(body, {**point, index.name: mpmath.mpf(k)})
        total = total + term if node.op == "sum" else total * term
    return total


def _evaluate(node: Node, point: Mapping[str, Any]) -> Any:
    if node.op in ("num", "sym"):
        return _leaf(node, point)
    if node.op in ("sum", "prod"):
        return _series(node, point)
    args = [_evaluate(arg, point) for arg in node.args]
    if node.op == "+":
        return mpmath.fsum(args)
    if node.op == "*":
        return mpmath.fprod(args)
    if node.op in ("/", ":") and len(args) == 2:
        return _divide(args[0], args[1])
    if node.op == "^":
        return _power(args[0], args[1], exact_value(node.args[1]), bool(point))
    if node.op == "root":
        degree = exact_value(node.args[1])
        return _power(args[0], _divide(mpmath.mpf(1), args[1]), 1 / degree if degree else None, bool(point))
    if node.op == "log":
        return _divide(_log(args[0], bool(point)), _log(args[1], bool(point)))
    return _apply(node, args, point)


def _apply(node: Node, args: list[Any], point: Mapping[str, Any]) -> Any:
    if node.op in _BOUNDED and point and abs(args[0]) > 1:
        raise Undefined
    if node.op in _FUNCTIONS:
        return _FUNCTIONS[node.op](args[0])
    if node.op in _REAL:
        return _REAL[node.op](*map(_real, args))
    exact = exact_value(node)
    if exact is not None:
        return mpmath.mpf(exact.numerator) / exact.denominator
    raise Unsupported(f"{node.op!r} inside an expression")


def value(node: Node, point: Mapping[str, Any]) -> Any | None:
    """Return the value of a tree at a point to the working precision, or None where it is undefined.

    Raises ``Unsupported`` for an operation that has no value here.
    """
    try:
        z = _evaluate(node, point)
    except Unsupported:
        raise
    except (ArithmeticError, ValueError, OverflowError):
        return None
    return z if mpmath.isfinite(z) else None


@lru_cache(maxsize=256)
def _points(names: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """Return fixed pseudo-random points: small, medium and large values, with every pattern of signs."""
    rng = random.Random("/".join(names))
    signs: list[tuple[int, ...]] = [(1,) * len(names)] * 4
    if len(names) <= _MAX_NAMES_FOR_ALL_SIGNS:
        signs += itertools.product((1, -1), repeat=len(names))
    else:
        signs += [tuple(rng.choice((1, -1)) for _ in names) for _ in range(8)]
    # Below 1 for arc functions, within one period, and beyond.
    ranges = ((0.1, 0.9), (0.4, 1.4), (1.1, 3.0), (3.5, 9.0))
    made = []
    for k, pattern in enumerate([*signs, *signs]):
        low, high = ranges[k % len(ranges)] if k < len(signs) else ranges[(k // 2) % len(ranges)]
        made.append(
            {
                name: sign * mpmath.mpf(rng.randint(int(low * 10**9), int(high * 10**9))) / 10**9
                for name, sign in zip(names, pattern, strict=True)
            }
        )
    return tuple(made)


def _agree(a: Any, b: Any, digits: int) -> bool:
    scale = max(abs(a), abs(b), mpmath.mpf(10) ** -20)
    return bool(abs(a - b) <= scale * mpmath.mpf(10) ** -digits)


def _names(a: Node, b: Node) -> tuple[str, ...]:
    """Return the variables of two expressions. Raises ``Unsupported`` for infinity, which has no value."""
    names = symbols(a) | symbols(b)
    if "oo" in names:
        raise Unsupported("infinity inside an expression")
    return tuple(sorted(names))


def same_function(a: Node, b: Node) -> bool:
    """Return whether two expressions have the same value wherever both are defined, at enough points.

    Raises ``Unsupported`` for operations that cannot be evaluated.
    """
    names = _names(a, b)
    if not names:
        return _same_constant(a, b)
    with mpmath.workdps(_DIGITS):
        common = 0
        for point in _points(names):
            left, right = value(a, point), value(b, point)
            if left is None or right is None:
                continue
            if not _agree(left, right, _AGREE):
                return False
            common += 1
    return common >= _MIN_POINTS


def _same_constant(a: Node, b: Node) -> bool:
    for digits, agree in ((60, 40), (_CONSTANT_DIGITS, _CONSTANT_AGREE)):
        with mpmath.workdps(digits):
            left, right = value(a, {}), value(b, {})
            if left is None or right is None or not _agree_constants(left, right, agree):
                return False
    return True


def _agree_constants(a: Any, b: Any, digits: int) -> bool:
    scale = max(abs(a), abs(b))
    return bool(abs(a - b) <= scale * mpmath.mpf(10) ** -digits) or (
        scale < mpmath.mpf(10) ** -digits and a == b
    )


def ratio(a: Node, b: Node) -> Any | str | None:
    """Return the constant by which one expression is a multiple of another.

    Returns:
        The number, "zero" if both vanish identically, "varies" if there is no such constant (also where one
        of them is constant or vanishes), None if they are defined together at too few points.
    """
    names = _names(a, b)
    with mpmath.workdps(_DIGITS):
        pairs = [(value(a, point), value(b, point)) for point in (_points(names) if names else ({},))]
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        if len(known) < (_MIN_POINTS if names else 1):
            return None
        zeros = [(_tiny(x), _tiny(y)) for x, y in known]
        if all(x and y for x, y in zeros):
            return "zero"
        if any(x or y for x, y in zeros):
            return "varies"
        first = known[0][0] / known[0][1]
        if not all(_agree(x / y, first, _AGREE) for x, y in known):
            return "varies"
        return first if names and not _constant([y for _, y in known]) else "varies"


def _constant(values: list[Any]) -> bool:
    return all(_agree(one, values[0], _AGREE) for one in values)
