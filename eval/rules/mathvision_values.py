r"""When two answers are the same to MathVision's scorer: as text, as tuples, or rounded to 2 decimals.

What it evaluates as Python is read and evaluated by ``rewards.parser`` and ``rewards.numeric`` here: nothing
that a model wrote is run. ``eval.rules.mathvision_prefix`` says which texts have a number.
"""

from __future__ import annotations

from functools import lru_cache

from eval.rules.mathvision_prefix import readable
from rewards.bounds import Unreadable
from rewards.numeric import evaluate
from rewards.parser import parse
from rewards.tree import Node, exact, walk
from rewards.tree import number as leaf

_WHOLE = frozenset(["num", "+", "*", "neg", "^", "!", "binom", "floor", "ceil"])
_FUNCTIONS = "sin cos tan arcsin arccos arctan sinh cosh tanh"
_NUMERIC = _WHOLE | {"/", "root", "log", "sym", *_FUNCTIONS.split()}


@lru_cache(maxsize=4096)
def number(text: str) -> int | float | None:
    """Return the number of a lower-case text, rounded to 2 decimals; None if it has none."""
    try:
        return _rounded(parse(readable(text)))
    except (Unreadable, ArithmeticError, ValueError):
        return None


def _rounded(tree: Node) -> int | float | None:
    """As Python rounds: whole numbers that no division or function made stay whole."""
    nodes = list(walk(tree))
    if any(node.op not in _NUMERIC or node.name not in ("", "pi", "e") for node in nodes):
        return None
    value = exact(tree)
    if value is not None:
        whole = value.denominator == 1 and all(node.op in _WHOLE for node in nodes)
        return int(value) if whole else round(float(value), 2)
    found = evaluate(_folded(tree), {})
    return round(found.z.real, 2) if found is not None and not found.z.imag else None


def _folded(node: Node) -> Node:
    """The tree with its exact parts as numbers, as floating point knows no factorials."""
    value = exact(node)
    if value is not None:
        return leaf(value)
    return Node(node.op, tuple(_folded(arg) for arg in node.args), name=node.name)


def rounded_members(text: str) -> str:
    r"""Return a tuple ``(…)`` or list ``[…]`` with each member rounded; any other text as it is.

    Members that name ``\infty``, and ``a`` and ``-a``, stay; one without a number leaves all as it is.
    """
    members = text[1:-1].split(",")
    if len(members) < 2 or text[:1] + text[-1:] not in ("()", "[]"):
        return text
    rounded = [_member(member) for member in members]
    kept = [member for member in rounded if member is not None]
    return f"{text[0]}{','.join(kept)}{text[-1]}" if len(kept) == len(members) else text


def _member(text: str) -> str | None:
    if "infty" in text or text in ("a", "-a"):
        return text
    value = number(text)
    return None if value is None else str(value)


def equal(first: str, second: str) -> bool:
    """Whether two answers are the same to the scorer; an empty one equals nothing."""
    first, second = first.lower(), second.lower()
    if not first.replace(" ", "") or not second.replace(" ", ""):
        return False
    if first.strip() == second.strip() or rounded_members(first) == rounded_members(second):
        return True
    value = number(first)
    return value is not None and value == number(second)
