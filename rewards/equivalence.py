"""Compare a bare answer with a gold answer and say how it went.

The road: options if the question has them; then what both sides say (``rewards.reading``), compared exactly
and numerically here, and by sympy in a worker process only where that does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewards.bounds import MAX_CHARS, Unreadable
from rewards.clean import clean
from rewards.decide import Incomparable, decide_cheaply, decide_fully
from rewards.options import chosen, gold_letters, letters_in, named
from rewards.pool import OutOfTime, shared_pool
from rewards.reading import Reading, read_answer, read_gold
from rewards.verdict import Status, Verdict

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
