"""Lists that mean one set of values by their form: ``x_1 = 2, x_2 = 3``, ``x = 2, 3``, ``±a``, two bounds."""

from __future__ import annotations

from dataclasses import replace

from rewards.blank import Part
from rewards.tree import Node, symbol, symbols, walk

_FLIPPED = {">": "<", ">=": "<="}


def _with_sign(tree: Node, plus: bool) -> Node:
    """The tree with every ± as plus and every ∓ as minus, or the other way round."""
    args = tuple(_with_sign(arg, plus) for arg in tree.args)
    if tree.op != "pm":
        return replace(tree, args=args)
    added = args[1] if plus == (tree.name == "p") else Node("neg", (args[1],))
    return Node("+", (args[0], added))


def both_signs(parts: tuple[Part, ...]) -> tuple[Part, ...] | None:
    """An answer with one ± in it (or one ± and one ∓, which go together) as its two values, else None."""
    tree = parts[0].tree if len(parts) == 1 else None
    signs = sorted(node.name for node in walk(tree) if node.op == "pm") if tree is not None else []
    if tree is None or not 1 <= len(signs) <= len(set(signs)):
        return None
    return tuple(replace(parts[0], tree=_with_sign(tree, plus), text="") for plus in (True, False))


def _bound(part: Part) -> tuple[str, str, Node] | None:
    """(name, "<" or "<=" with a side, bound) of ``x > 1`` and its like."""
    tree = part.tree
    if tree is None or tree.op != "rel" or tree.name not in ("<", "<=", ">", ">="):
        return None
    left, right = tree.args
    if tree.name in _FLIPPED:
        left, right = right, left
    sign = _FLIPPED.get(tree.name, tree.name)
    if left.op == "sym" and not symbols(right):
        return left.name, f"{sign} above", right
    return (right.name, f"{sign} below", left) if right.op == "sym" and not symbols(left) else None


def both_bounds(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """``x > 1 and x < 3`` as ``1 < x < 3``; any other parts as they are."""
    bounds = sorted((bound for part in parts if (bound := _bound(part))), key=lambda b: b[1].split()[1])
    if len(parts) != 2 or len(bounds) != 2 or bounds[0][0] != bounds[1][0]:
        return parts
    (upper, lower), name = bounds, symbol(bounds[0][0])
    if (upper[1].split()[1], lower[1].split()[1]) != ("above", "below"):
        return parts
    signs = f"{lower[1].split()[0]} {upper[1].split()[0]}"
    return (Part("", Node("rel", (lower[2], name, upper[2]), name=signs)),)


def unnumbered(part: Part) -> Part:
    """``x_2 = 3`` as ``x = 3``: which of its solutions an equation calls the second says nothing."""
    tree = part.tree
    if tree is None or tree.op != "rel":
        return part
    letter = symbol(tree.args[0].name.partition("_")[0])
    return replace(part, tree=Node("rel", (letter, *tree.args[1:]), name=tree.name))


def is_solution_set(parts: tuple[Part, ...]) -> bool:
    """Whether a list is a solution set by its form: ``x_1 = 2, x_2 = 3``, ``x = 2, x = 3``, ``x = 2, 3``."""
    trees = [part.tree for part in parts if part.tree is not None]
    defined = [t.args[0].name for t in trees if t.op == "rel" and t.name == "=" and t.args[0].op == "sym"]
    letters = {name.partition("_")[0] for name in defined}
    if len(parts) < 2 or len(trees) < len(parts) or len(letters) != 1:
        return False
    bare = [tree for tree in trees[1:] if tree.op != "rel"]
    same_name = len(set(defined)) == 1 or all(n[-2:] in ("_1", "_2", "_3", "_4") for n in defined)
    return same_name and (len(defined) == len(parts) or (len(defined) == 1 and len(bare) == len(parts) - 1))
