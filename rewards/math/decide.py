"""Decision whether two bare answers are equal: cheaply without sympy, or fully with it."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.math.comparison.answers import same_answer
from rewards.math.comparison.trees import Undecided
from rewards.math.read import read_answer, read_gold
from rewards.math.tree import Node


class Incomparable(Exception):
    """sympy raised on one of the sides; the message is sympy's."""


class _WithoutSympy:
    """Symbolic backend of the parent process: every comparison is undecided."""

    def equal(self, a: Node, b: Node) -> bool:
        raise Undecided

    def same_equation(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        raise Undecided

    def same_inequality(self, a: tuple[Node, Node], b: tuple[Node, Node]) -> bool:
        raise Undecided

    def solves(self, equation: tuple[Node, Node], name: str, values: Sequence[Node]) -> bool:
        raise Undecided


class _Sympy:
    """Symbolic backend that calls sympy, imported at the first comparison."""

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
    """Compare without sympy, in bounded time; None if undecided. Raises ``Unreadable``."""
    try:
        return same_answer(read_answer(answer), read_gold(gold, ordered), _WithoutSympy())
    except Undecided:
        return None


def decide_fully(answer: str, gold: str, ordered: bool = True) -> bool:
    """Compare with sympy in this process, without limits of time or memory.

    Raises ``Unreadable``, and ``Incomparable`` where sympy raises: the expression is untrusted input, so an
    exception of sympy is a property of the expression and not a fault of this program.
    """
    sides = read_answer(answer), read_gold(gold, ordered)
    try:
        return same_answer(*sides, _Sympy())
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        raise Incomparable(f"{type(error).__name__}: {error}"[:200]) from error
