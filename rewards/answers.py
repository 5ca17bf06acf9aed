"""Whether two whole answers say the same: their blanks, in order or as a set, and the gold's alternatives."""

from __future__ import annotations

from rewards.compare import (
    Arbiter,
    Undecided,
    definition,
    matched,
    ordered,
    same_intervals,
    same_part,
    same_set,
)
from rewards.reading import Part, Reading
from rewards.regions import union
from rewards.tree import Node, symbols


def _items(reading: Reading) -> list[Node]:
    """The elements of a reading that can be taken as a set."""
    trees = [part.tree for part in reading.parts if part.tree is not None]
    if len(trees) < len(reading.parts):
        return []
    return list(trees[0].args) if len(trees) == 1 and trees[0].op in ("set", "bracket") else trees


def _flat(reading: Reading) -> list[Node]:
    """The coordinates of all its points one after the other."""
    return [item for tree in _items(reading) for item in (tree.args if tree.op == "bracket" else (tree,))]


def _name(part: Part) -> Node | None:
    defined = definition(part.tree) if part.tree is not None else None
    return defined[0] if defined and symbols(defined[0]) else None


def _by_name(answer: Reading, gold: Reading) -> Reading:
    """The answer's blanks in the gold's order, where all of them are named and the names are the same."""
    names, wanted = [_name(part) for part in answer.parts], [_name(part) for part in gold.parts]
    if None in names or None in wanted or len(set(names)) < len(names) or set(names) != set(wanted):
        return answer
    return Reading(tuple(answer.parts[names.index(name)] for name in wanted), answer.ordered)


def _same_reading(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    if len(answer.parts) != len(gold.parts) and _same_solutions(answer, gold, arbiter):
        return True
    if not (answer.ordered and gold.ordered):
        return _same_unordered(answer, gold, arbiter)
    counts = len(answer.parts), len(gold.parts)
    if counts[0] == counts[1]:
        pairs = zip(_by_name(answer, gold).parts, gold.parts, strict=True)
        return all(same_part(a, g, arbiter) for a, g in pairs)
    if 1 not in counts:
        return _same_coordinates(answer, gold, arbiter)
    single = (answer if counts[0] == 1 else gold).parts[0].tree
    if single is None or single.op not in ("set", "bracket") or not _items(answer) or not _items(gold):
        return False
    return (same_set if single.op == "set" else ordered)(_items(answer), _items(gold), arbiter)


def _same_coordinates(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """``(5, 2), (7, 2)`` for ``p=5, q=2; p=7, q=2``."""
    first, second = _flat(answer), _flat(gold)
    grouped = {tree.op for tree in _items(answer)} == {"bracket"} or {t.op for t in _items(gold)} == {
        "bracket"
    }
    return grouped and bool(first and second) and ordered(first, second, arbiter)


def _same_unordered(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """Solution sets: unions of intervals, or values in any order."""
    unions = [union([p.tree for p in r.parts if p.tree is not None]) for r in (answer, gold)]
    if unions[0] and unions[1]:
        return same_intervals(unions[0], unions[1], arbiter)
    same_count = len(answer.parts) == len(gold.parts)
    if same_count and matched(answer.parts, gold.parts, lambda a, g: same_part(a, g, arbiter)):
        return True
    if len(answer.parts) == len(gold.parts) == 1:
        return False
    first, second = _items(answer), _items(gold)
    same = bool(first and second) and same_set(first, second, arbiter)
    return same or _same_coordinates(answer, gold, arbiter)


def _same_solutions(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """``x = ±2`` for ``x² = 4``: one side an equation in a letter, the other all its values."""
    for one, other in ((answer, gold), (gold, answer)):
        equation = one.parts[0].tree if len(one.parts) == 1 else None
        if equation is None or equation.op != "rel" or equation.name != "=" or definition(equation):
            continue
        names = symbols(equation)
        values = _named_values(other)
        if len(names) == 1 and len(values) == len(other.parts) and {name for name, _ in values} == names:
            sides = equation.args[0], equation.args[1]
            return arbiter.solves(sides, next(iter(names)), [value for _, value in values])
    return False


def _named_values(reading: Reading) -> list[tuple[str, Node]]:
    defined = [definition(part.tree) for part in reading.parts if part.tree is not None]
    return [(d[0].name.split("_")[0], d[1]) for d in defined if d and d[0].op == "sym"]


def same_answer(answer: Reading, gold: Reading, arbiter: Arbiter) -> bool:
    """Whether the answer says the same as the gold answer or as one of its alternatives."""
    undecided = False
    pairs = [(a, g) for g in (gold, *gold.alternatives) for a in (answer, *answer.alternatives)]
    for one, reading in pairs:
        try:
            if _same_reading(one, reading, arbiter):
                return True
        except Undecided:
            undecided = True
    if undecided:
        raise Undecided
    return False
