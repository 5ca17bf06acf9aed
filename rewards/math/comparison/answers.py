"""Comparison of a parsed answer with a parsed gold answer: items in order, sets, solutions, coordinates."""

from __future__ import annotations

from rewards.math.comparison.chains import definition
from rewards.math.comparison.intervals import Interval, as_intervals, region, union_of_intervals
from rewards.math.comparison.items import same_item
from rewards.math.comparison.trees import (
    SymbolicBackend,
    Undecided,
    match_one_to_one,
    same_intervals,
    same_sequence,
    same_set,
)
from rewards.math.read import AnswerItem, ParsedAnswer
from rewards.math.tree import Node, symbols


def _elements(parsed: ParsedAnswer) -> list[Node]:
    """Return the elements of an answer that can be a set or a tuple; empty if an item is words."""
    trees = [item.tree for item in parsed.items if item.tree is not None]
    if len(trees) < len(parsed.items):
        return []
    return list(trees[0].args) if len(trees) == 1 and trees[0].op in ("set", "bracket") else trees


def _coordinates(parsed: ParsedAnswer) -> list[Node]:
    """Return the concatenated coordinates of the answer's points."""
    return [item for tree in _elements(parsed) for item in (tree.args if tree.op == "bracket" else (tree,))]


def _defined_name(item: AnswerItem) -> Node | None:
    defined = definition(item.tree) if item.tree is not None else None
    return defined[0] if defined and symbols(defined[0]) else None


def _in_gold_order(answer: ParsedAnswer, gold: ParsedAnswer) -> ParsedAnswer:
    """Reorder the answer's items by the gold's names, if both sides use the same names for all items."""
    names, wanted = (
        [_defined_name(item) for item in answer.items],
        [_defined_name(item) for item in gold.items],
    )
    if None in names or None in wanted or len(set(names)) < len(names) or set(names) != set(wanted):
        return answer
    return ParsedAnswer(tuple(answer.items[names.index(name)] for name in wanted), answer.ordered)


def _same_parsed(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    if len(answer.items) != len(gold.items) and _same_solutions(answer, gold, backend):
        return True
    regions = _regions(answer, gold)
    if regions:
        return same_intervals(*regions, backend)
    if not (answer.ordered and gold.ordered):
        return _same_unordered(answer, gold, backend)
    counts = len(answer.items), len(gold.items)
    if counts[0] == counts[1]:
        pairs = zip(_in_gold_order(answer, gold).items, gold.items, strict=True)
        return all(same_item(a, g, backend) for a, g in pairs)
    if 1 not in counts:
        return _same_coordinates(answer, gold, backend)
    single = (answer if counts[0] == 1 else gold).items[0].tree
    if single is None or single.op not in ("set", "bracket") or not _elements(answer) or not _elements(gold):
        return False
    return (same_set if single.op == "set" else same_sequence)(_elements(answer), _elements(gold), backend)


def _regions(
    answer: ParsedAnswer, gold: ParsedAnswer
) -> tuple[tuple[Interval, ...], tuple[Interval, ...]] | None:
    """Return both sides as sets of real numbers, if one of them gives several conditions or intervals."""
    if len(answer.items) == len(gold.items) == 1:
        return None
    first, second = _region(answer, gold), _region(gold, answer)
    return (first, second) if first and second else None


def _region(parsed: ParsedAnswer, other: ParsedAnswer) -> tuple[Interval, ...] | None:
    trees = [item.tree for item in parsed.items if item.tree is not None]
    if len(trees) < len(parsed.items) or any(item.unit for item in parsed.items):
        return None
    if len(trees) == 1:
        return as_intervals(trees[0])
    single = other.items[0].tree if len(other.items) == 1 else None
    if single is not None and single.op == "cup" and all(tree.op in ("bracket", "cup") for tree in trees):
        return union_of_intervals(trees)
    return region(trees, parsed.joined)


def _same_coordinates(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Compare points with their coordinates: ``(5, 2), (7, 2)`` with ``p=5, q=2; p=7, q=2``."""
    first, second = _coordinates(answer), _coordinates(gold)
    grouped = {tree.op for tree in _elements(answer)} == {"bracket"} or {t.op for t in _elements(gold)} == {
        "bracket"
    }
    return grouped and bool(first and second) and same_sequence(first, second, backend)


def _union(parsed: ParsedAnswer) -> tuple[Interval, ...] | None:
    """Return the union of an answer's sets of numbers, or None; several points are no intervals."""
    trees = [item.tree for item in parsed.items if item.tree is not None]
    points = len(trees) > 1 and not parsed.joined and all(tree.op == "bracket" for tree in trees)
    return None if points or len(trees) < len(parsed.items) else union_of_intervals(trees)


def _same_unordered(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Compare solution sets: unions of intervals, or values in any order."""
    first_union, second_union = _union(answer), _union(gold)
    if first_union and second_union:
        return same_intervals(first_union, second_union, backend)
    same_count = len(answer.items) == len(gold.items)
    if same_count and match_one_to_one(answer.items, gold.items, lambda a, g: same_item(a, g, backend)):
        return True
    if len(answer.items) == len(gold.items) == 1:
        return False
    first, second = _elements(answer), _elements(gold)
    same = bool(first and second) and same_set(first, second, backend)
    return same or _same_coordinates(answer, gold, backend)


def _same_solutions(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Compare an equation in one letter with all its solutions: ``x² = 4`` with ``x = ±2``."""
    for one, other in ((answer, gold), (gold, answer)):
        equation = one.items[0].tree if len(one.items) == 1 else None
        if equation is None or equation.op != "rel" or equation.name != "=" or definition(equation):
            continue
        names = symbols(equation)
        values = _named_values(other)
        if len(names) == 1 and len(values) == len(other.items) and {name for name, _ in values} == names:
            sides = equation.args[0], equation.args[1]
            return backend.solves(sides, next(iter(names)), [value for _, value in values])
    return False


def _named_values(parsed: ParsedAnswer) -> list[tuple[str, Node]]:
    defined = [definition(item.tree) for item in parsed.items if item.tree is not None]
    return [(d[0].name.split("_")[0], d[1]) for d in defined if d and d[0].op == "sym"]


def same_answer(answer: ParsedAnswer, gold: ParsedAnswer, backend: SymbolicBackend) -> bool:
    """Return whether the answer equals the gold answer or one of its alternatives."""
    undecided = False
    pairs = [(a, g) for g in (gold, *gold.alternatives) for a in (answer, *answer.alternatives)]
    for one, parsed in pairs:
        try:
            if _same_parsed(one, parsed, backend):
                return True
        except Undecided:
            undecided = True
    if undecided:
        raise Undecided
    return False
