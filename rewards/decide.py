"""From two bare answers to yes or no: cheaply here, fully where sympy may run."""

from __future__ import annotations

from rewards.compare import Undecided, same_answer
from rewards.reading import read_answer, read_gold
from rewards.tree import Node


class Incomparable(Exception):
    """sympy could not work with one of the sides; the message is sympy's."""


class _NoArbiter:
    """Stands where sympy would be asked, and says that it must be."""

    def equal(self, a: Node, b: Node) -> bool:
        raise Undecided

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        raise Undecided


class _Sympy:
    """Asks sympy, which is imported at the first question."""

    def equal(self, a: Node, b: Node) -> bool:
        from rewards import symbolic

        return symbolic.equal(a, b)

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        from rewards import symbolic

        return symbolic.same_equation(a, b)


def decide_cheaply(answer: str, gold: str) -> bool | None:
    """Compare without sympy; None if that does not decide. Microseconds, bounded. Raises ``Unreadable``."""
    try:
        return same_answer(read_answer(answer), read_gold(gold), _NoArbiter())
    except Undecided:
        return None


def decide_fully(answer: str, gold: str) -> bool:
    """Compare with sympy in this process, without bounds of time or memory.

    Raises ``Unreadable``, and ``Incomparable`` where sympy raises: the expression is an outsider's, so any
    exception of sympy's says something of the expression and nothing of this program.
    """
    sides = read_answer(answer), read_gold(gold)
    try:
        return same_answer(*sides, _Sympy())
    except MemoryError:
        raise
    except Exception as error:
        raise Incomparable(f"{type(error).__name__}: {error}"[:200]) from error
