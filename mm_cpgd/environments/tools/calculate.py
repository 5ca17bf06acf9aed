"""Calculator on the verifier's own bounded parser: no code runs, and no number grows beyond its bounds."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from fractions import Fraction

from mm_cpgd.environments.coordinates import ToolError
from rewards.math.bounds import Unreadable
from rewards.math.clean import clean
from rewards.math.numeric import evaluate
from rewards.math.parser import parse
from rewards.math.tree import Node, exact_value, symbols, walk
from rewards.messages import short

DIGITS = 12
_SCIENTIFIC = re.compile(r"(?<=[0-9.])[eE]([-+]?[0-9]{1,3})(?![0-9.])")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")


def calculator(expression: str) -> str:
    """Compute the value of an arithmetic expression, such as (3 + 4) * 2, sqrt(2), 5! / 3!, sin(30°).

    Args:
        expression: numbers, + - * / ^ !, brackets, functions, pi and e; LaTeX is read too.
    """
    try:
        plain = _SCIENTIFIC.sub(r"*10^{\1}", _THOUSANDS.sub("", expression))
        tree = parse(clean(plain))
        exact = exact_value(tree)
    except Unreadable as error:
        raise ToolError(f"the expression {short(expression, 60)!r} cannot be read: {error}") from None
    if exact is not None:
        return shown(exact)
    return f"{_real(tree, expression):.{DIGITS}g}"


def _real(tree: Node, expression: str) -> float:
    names = symbols(tree)
    if names or any(node.op == "rel" for node in walk(tree)):
        why = f"it has the name {short(min(names), 20)!r}" if names else "it is a relation"
        raise ToolError(f"the expression {short(expression, 60)!r} has no value: {why}")
    value = evaluate(tree, {})
    if value is None or abs(value.z.imag) > 1e-9 * max(1.0, abs(value.z)):
        raise ToolError(f"the expression {short(expression, 60)!r} has no real value that can be computed")
    return value.z.real


def shown(value: Fraction) -> str:
    """Return a fraction as a decimal number of at most ``DIGITS`` digits, marked if it is rounded."""
    if value.denominator == 1 and value.numerator.bit_length() <= 100:
        return str(value.numerator)
    context = Context(prec=DIGITS)
    rounded = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    if Fraction(rounded) == value:
        plain = rounded.normalize(context)
        return f"{plain:f}" if abs(plain.adjusted()) < DIGITS else str(plain)
    ratio = f"{value.numerator}/{value.denominator}"
    return f"about {rounded}" + (f" ({ratio})" if len(ratio) <= 2 * DIGITS else "")
