"""From whole completions to verdicts: extract, then compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rewards.equivalence import TIME_LIMIT, judge
from rewards.extract import extract_answer
from rewards.pool import usable_cores
from rewards.reading import Unreadable, read_gold
from rewards.verdict import Status, Verdict

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Apply ``function`` in as many threads as there are usable cores; order is kept.

    Threads are enough: what takes long happens in worker processes, and a thread only waits for it.
    """
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix="rewards") as executor:
        return list(executor.map(function, items))


def _no_answer(gold: str, choices: Sequence[str]) -> Verdict:
    """A missing answer is wrong, unless nothing could have been right."""
    if not choices:
        try:
            read_gold(gold)
        except Unreadable as error:
            return Verdict(None, Status.UNPARSABLE_GOLD, None, f"the gold answer cannot be scored: {error}")
    return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")


def verify(
    completion: str,
    gold: str,
    *,
    choices: Sequence[str] = (),
    timeout: float | None = TIME_LIMIT,
    ordered: bool = True,
) -> Verdict:
    """Extract the final answer of a completion and compare it with the gold answer.

    Args:
        completion: the model's whole text.
        gold: the gold answer. Not exchangeable with the completion.
        choices: the options' texts in order A, B, …; empty for a free-form question.
        timeout: seconds for the comparison in a worker process; None compares here, without bounds.
        ordered: False where several values of a gold answer are a set, such as the solutions of an equation.
    """
    answer = extract_answer(completion)
    return judge(answer, gold, choices, timeout, ordered) if answer else _no_answer(gold, choices)


def verify_many(
    completions: Sequence[str],
    golds: Sequence[str],
    *,
    choices: Sequence[Sequence[str]] | None = None,
    timeout: float | None = TIME_LIMIT,
    ordered: bool = True,
) -> list[Verdict]:
    """``verify`` for many pairs on all cores, in their order. Raises ``ValueError`` if the lengths differ."""
    options = choices if choices is not None else [()] * len(golds)
    if not len(completions) == len(golds) == len(options):
        raise ValueError(
            f"{len(completions)} completions, {len(golds)} golds, {len(options)} choices: not the same number"
        )
    rows = zip(completions, golds, options, strict=True)
    return side_by_side(
        lambda row: verify(row[0], row[1], choices=row[2], timeout=timeout, ordered=ordered), rows
    )
