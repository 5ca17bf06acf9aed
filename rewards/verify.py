"""Verification of completions: extract the final answer, compare it with the gold, return a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rewards.extract import extract_answer
from rewards.math.bounds import MAX_CHARS, Unreadable
from rewards.math.choices import chosen, gold_letters, letters_in, named
from rewards.math.clean import clean
from rewards.math.decide import Incomparable, decide_cheaply, decide_fully
from rewards.math.read import Reading, read_answer, read_gold
from rewards.verdict import Status, Verdict
from rewards.workers.pool import OutOfTime, shared_pool, usable_cores

TIME_LIMIT = 2.0


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "…"


def _judged(right: bool, answer: str, gold: str, how: str = "") -> Verdict:
    status = Status.CORRECT if right else Status.WRONG
    relation = "equals" if right else "is not"
    return Verdict(float(right), status, answer, f"{_short(answer)} {relation} {_short(gold)}{how}")


def _judge_options(answer: str, gold: str, choices: Sequence[str], timeout: float | None) -> Verdict | None:
    """By the options; None if the gold answer names none of them."""
    wanted = chosen(gold, choices)
    if not wanted:
        return None
    picked = chosen(answer, choices)
    if picked:
        return _judged(picked == wanted, answer, gold, f" (option {named(picked)}, gold {named(wanted)})")
    if len(wanted) == 1:
        (index,) = wanted
        by_value = _judge_free(answer, choices[index], timeout)
        if by_value.score is not None:
            return by_value
    return Verdict(0.0, Status.WRONG, answer, f"{_short(answer)} names none of the {len(choices)} options")


def _judge_letters(answer: str, gold: str, wanted: frozenset[str]) -> Verdict | None:
    """By the letters alone, where the options are not known; None if the answer is none."""
    letters = letters_in(answer)
    return _judged(letters == wanted, answer, gold) if letters else None


def _is_words(reading: Reading) -> bool:
    return all(part.tree is None for part in reading.parts)


def _unreadable_answer(answer: str, gold: Reading) -> Verdict | None:
    try:
        reading = read_answer(answer)
    except Unreadable as error:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"the answer cannot be read: {error}")
    if all(map(_is_words, (reading, *reading.alternatives))) and all(
        part.tree is not None for part in gold.parts
    ):
        reason = f"{_short(answer)} is not mathematics, the gold answer is"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    return None


def _judge_free(answer: str, gold: str, timeout: float | None, ordered: bool = True) -> Verdict:
    try:
        wanted = read_gold(gold)
    except Unreadable as error:
        return Verdict(None, Status.UNPARSABLE_GOLD, answer, f"the gold answer cannot be scored: {error}")
    if len(answer) <= MAX_CHARS and clean(answer) == clean(gold):
        return _judged(True, answer, gold, " (the same text)")
    unreadable = _unreadable_answer(answer, wanted)
    if unreadable:
        return unreadable
    cheap = decide_cheaply(answer, gold, ordered)
    if cheap is not None:
        return _judged(cheap, answer, gold)
    return _judge_by_sympy(answer, gold, timeout, ordered)


def _judge_by_sympy(answer: str, gold: str, timeout: float | None, ordered: bool) -> Verdict:
    try:
        if timeout is None:
            equal = decide_fully(answer, gold, ordered)
        else:
            equal = shared_pool().equal(answer, gold, timeout, ordered)
        return _judged(equal, answer, gold, " (sympy)")
    except Incomparable as error:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"not comparable with {_short(gold)}: {error}")
    except OutOfTime as error:
        return Verdict(0.0, Status.TIMEOUT, answer, f"not shown to equal {_short(gold)}: {error}")


def judge(
    answer: str,
    gold: str,
    choices: Sequence[str] = (),
    timeout: float | None = TIME_LIMIT,
    ordered: bool = True,
) -> Verdict:
    """Return the verdict on a bare answer.

    Args:
        answer: what was extracted from a completion.
        gold: the gold answer.
        choices: the options' texts in order A, B, …; empty for a free-form question.
        timeout: seconds for the comparison in a worker process; None compares here, without bounds.
        ordered: False where several values of a gold answer are a set, such as the solutions of an equation.
    """
    by_options = _judge_options(answer, gold, choices, timeout) if choices else None
    if by_options:
        return by_options
    letters = gold_letters(gold)
    by_letter = _judge_letters(answer, gold, letters) if letters else None
    return by_letter or _judge_free(answer, gold, timeout, ordered)


def equivalent(answer: str, gold: str, *, timeout: float | None = TIME_LIMIT, ordered: bool = True) -> bool:
    """Whether a bare answer equals a gold answer.

    False also where the gold cannot be scored or time runs out; ``verify`` tells these apart.
    ``timeout=None`` compares in this process, without bounds of time or memory.
    """
    return judge(answer, gold, timeout=timeout, ordered=ordered).status is Status.CORRECT


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
