"""Aggregates over groups of rows, computed by hand."""

from __future__ import annotations

from typing import Any

from data import Example
from eval.declared.aggregates import metrics
from eval.declared.schema import Aggregate
from rewards import Status, Verdict

# Group a: 1, 1, 0; group b: 1, 0.5; group c: 1, 1 with one row that has no score.
SCORES: dict[str, list[float | None]] = {"a": [1, 1, 0], "b": [1, 0.5], "c": [1, 1, None]}


def scored() -> list[tuple[Example, Verdict]]:
    return [
        (Example(f"{name}{i}", "?", "x", meta={"group": name, "part": i}), Verdict(value, Status.PARTIAL))
        for name, values in SCORES.items()
        for i, value in enumerate(values)
    ]


def one(**how: Any) -> tuple[float | None, int]:
    found = metrics({"m": Aggregate.model_validate({"by": "group", **how})}, scored())
    return found["m"], found["m_groups"]  # type: ignore[return-value]


def test_macro_is_the_mean_of_the_groups_means() -> None:
    assert one(kind="macro") == ((2 / 3 + 0.75) / 2, 2)


def test_worst_is_the_mean_of_the_lowest_scores() -> None:
    assert one(kind="worst") == ((0 + 0.5) / 2, 2)


def test_all_counts_groups_whose_rows_are_all_right() -> None:
    assert one(kind="all", where={"part": [0]}) == (1.0, 3)
    assert one(kind="all") == (0.0, 2)


def test_groups_of_another_size_are_incomplete() -> None:
    assert one(kind="macro", size=2) == (0.75, 1)
    assert one(kind="macro", size=9) == (None, 0)


def test_rows_that_match_every_column_of_unless_are_left_out() -> None:
    assert one(kind="all", unless={"group": "a", "part": 2}) == ((1 + 0) / 2, 2)


def test_the_order_of_rows_changes_nothing() -> None:
    aggregates = {"m": Aggregate.model_validate({"kind": "macro", "by": "group"})}
    assert metrics(aggregates, scored()[::-1]) == metrics(aggregates, scored())
