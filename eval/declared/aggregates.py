"""Aggregates over groups of rows: mean of groups, worst of variants, all rows of a group right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from data import Example
from eval.declared.rows import matches
from eval.declared.schema import Aggregate
from rewards import Verdict

_KINDS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "macro": fmean,
    "worst": min,
    "all": lambda scores: float(all(score >= 1 for score in scores)),
}


def metrics(
    aggregates: Mapping[str, Aggregate], scored: Sequence[tuple[Example, Verdict]]
) -> dict[str, float | int | None]:
    """Return every aggregate, and beside it under ``NAME_groups`` the number of groups that it covers.

    A group with a row that has no score, or with fewer rows than a complete one, is left out. An aggregate of
    no group is None.
    """
    found: dict[str, float | int | None] = {}
    for name, aggregate in aggregates.items():
        groups = _complete_groups(aggregate, scored)
        values = [_KINDS[aggregate.kind](scores) for scores in groups]
        found[name] = fmean(values) if values else None
        found[f"{name}_groups"] = len(values)
    return found


def _complete_groups(
    aggregate: Aggregate, scored: Sequence[tuple[Example, Verdict]]
) -> list[Sequence[float]]:
    groups: dict[str, list[float | None]] = defaultdict(list)
    for example, verdict in scored:
        left_out = bool(aggregate.unless) and matches(example.meta, aggregate.unless)
        if matches(example.meta, aggregate.where) and not left_out:
            groups[str(aggregate.by.value(example.meta, example.id))].append(verdict.score)
    return [
        known
        for scores in groups.values()
        if len(known := [score for score in scores if score is not None]) == len(scores)
        and aggregate.size in (None, len(scores))
    ]
