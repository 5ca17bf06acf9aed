"""From two bare answers to yes or no: cheaply here, fully where sympy may run."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.math.compare import Undecided, same_answer
from rewards.math.read import read_answer, read_gold
from rewards.math.tree import Node


class Incomparable(Exception):
    """sympy could not work with one of the sides; the message is sympy's."""


class _NoArbiter:
    """Stands where sympy would be asked, and says that it must be."""

    def equal(self, a: Node, b: Node) -> bool:
        raise Undecided

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        raise Undecided

    def same_inequality(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        raise Undecided

    def solves(self, equation: tuple[Node, Node], name: str, values: Sequence[Node]) -> bool:
        raise Undecided


class _Sympy:
    """Asks sympy, which is imported at the first question."""

    def equal(self, a: Node, b: Node) -> bool:
        from rewards.math import symbolic

        return symbolic.equal(a, b)

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        from rewards.math import symbolic

        return symbolic.same_equation(a, b)

    def same_inequality(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        from rewards.math import symbolic

        return symbolic.same_inequality(a, b)

    def solves(self, equation: tuple[Node, Node], name: str, values: Sequence[Node]) -> bool:
        from rewards.math import symbolic

        return symbolic.solves(equation, name, values)


def decide_cheaply(answer: str, gold: str, ordered: bool = True) -> bool | None:
    """Compare without sympy; None if that does not decide. Microseconds, bounded. Raises ``Unreadable``."""
    try:
        return same_answer(read_answer(answer), read_gold(gold, ordered), _NoArbiter())
    except Undecided:
        return None


def decide_fully(answer: str, gold: str, ordered: bool = True) -> bool:
    """Compare with sympy in this process, without bounds of time or memory.

    Raises ``Unreadable``, and ``Incomparable`` where sympy raises: the expression is an outsider's, so any
    exception of sympy's says something of the expression and nothing of this program.
    """
    sides = read_answer(answer), read_gold(gold, ordered)
    try:
        return same_answer(*sides, _Sympy())
    except MemoryError:
        raise
    except Exception as error:
        raise Incomparable(f"{type(error).__name__}: {error}"[:200]) from error
