"""Verification of completions: the final answer is extracted and compared with the gold answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewards.extract import extract_answer
from rewards.extract.gold import lettered_gold, stated_gold
from rewards.inputs import as_choices, as_completion, as_gold
from rewards.math.bounds import MAX_CHARS, Refused, Unreadable
from rewards.math.choices import (
    contradicts_its_letter,
    find_options,
    gold_letters,
    letters_in,
    names_letters,
    option_letters,
)
from rewards.math.clean import clean
from rewards.math.decide import Incomparable, decide_cheaply, decide_fully
from rewards.math.read import ParsedAnswer, read_answer, read_gold, unread_part
from rewards.messages import short
from rewards.verdict import Status, Verdict
from rewards.workers.pool import OutOfTime, map_in_threads, shared_pool

TIME_LIMIT = 2.0
# A product of letters, which an answer may write as what is also a word: "i n" and "in".
_FACTORS = re.compile(r"[A-Za-z](?: [A-Za-z]){1,5}")


def _shown(text: str) -> str:
    return short(text, 80, keep=77)


def _graded(right: bool, answer: str, gold: str, how: str = "") -> Verdict:
    status = Status.CORRECT if right else Status.WRONG
    relation = "equals" if right else "is not"
    return Verdict(float(right), status, answer, f"{_shown(answer)} {relation} {_shown(gold)}{how}")


def _grade_options(answer: str, gold: str, choices: Sequence[str], timeout: float | None) -> Verdict | None:
    """Return the verdict by options, or None if the gold answer names none of them."""
    wanted = find_options(gold, choices)
    if not wanted:
        return None
    picked = find_options(answer, choices)
    if picked:
        return _graded(
            picked == wanted,
            answer,
            gold,
            f" (option {option_letters(picked)}, gold {option_letters(wanted)})",
        )
    if len(wanted) == 1 and not names_letters(answer, len(choices)):
        (index,) = wanted
        by_value = _grade_free_form(answer, choices[index], timeout)
        if by_value.score is not None:
            return by_value
    return Verdict(0.0, Status.WRONG, answer, f"{_shown(answer)} names none of the {len(choices)} options")


def _grade_letters(answer: str, gold: str, wanted: frozenset[str]) -> Verdict | None:
    """Return the verdict by letters where the options are unknown, or None if the answer names no letter."""
    letters = letters_in(answer)
    return _graded(letters == wanted, answer, gold) if letters else None


def _grade_lettered(answer: str, gold: str, letter: str, text: str) -> Verdict | None:
    """Return the verdict on an answer that names a letter, where the gold answer has a letter and a text."""
    letters = letters_in(answer)
    if not letters:
        return None
    return _graded(letters == {letter} and not contradicts_its_letter(answer, letter, text), answer, gold)


def _only_words(parsed: ParsedAnswer) -> bool:
    return all(item.tree is None for item in parsed.items)


def _is_mathematics(answer: str) -> bool:
    """Return whether an answer, beside a gold answer that can only be read as words, is no such text."""
    try:
        return any(item.tree is not None for item in read_answer(answer).items)
    except Unreadable:
        return False


def _unreadable_answer(answer: str, gold: ParsedAnswer) -> Verdict | None:
    try:
        parsed = read_answer(answer)
    except Unreadable as error:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"the answer cannot be read: {error}")
    if all(map(_only_words, (parsed, *parsed.alternatives))) and all(
        item.tree is not None for item in gold.items
    ):
        reason = f"{_shown(answer)} is not mathematics, the gold answer is"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    return None


def _same_text(answer: str, gold: str) -> Verdict | None:
    """Return the verdict on an answer that is the gold answer's text, before any bound refuses it."""
    if len(answer) > MAX_CHARS or len(gold) > MAX_CHARS or _spelled(answer) != _spelled(gold):
        return None
    return _graded(True, answer, gold, " (the same text)")


def _spelled(text: str) -> str:
    text = clean(text).strip(" $.")
    if _FACTORS.fullmatch(text):
        return text.replace(" ", "")
    return text if "\\" not in text else text.replace("{ ", "{").replace(" }", "}")


def _unscorable(answer: str | None, reason: object) -> Verdict:
    return Verdict(None, Status.UNPARSABLE_GOLD, answer, f"the gold answer cannot be scored: {reason}")


def _grade_free_form(answer: str, gold: str, timeout: float | None, ordered: bool = True) -> Verdict:
    try:
        wanted = read_gold(gold)
    except Refused as error:
        return _same_text(answer, gold) or _unscorable(answer, error)
    except Unreadable as error:
        return _unscorable(answer, error)
    same = _same_text(answer, gold)
    if same:
        return same
    unread = unread_part(wanted, gold)
    if unread and _is_mathematics(answer):
        return _unscorable(answer, f"it is words, but has mathematics that cannot be read: {_shown(unread)}")
    unreadable = _unreadable_answer(answer, wanted)
    if unreadable:
        return unreadable
    cheap = decide_cheaply(answer, gold, ordered)
    if cheap is not None:
        return _graded(cheap, answer, gold)
    return _grade_with_sympy(answer, gold, timeout, ordered)


def _grade_with_sympy(answer: str, gold: str, timeout: float | None, ordered: bool) -> Verdict:
    try:
        if timeout is None:
            equal = decide_fully(answer, gold, ordered)
        else:
            equal = shared_pool().equal(answer, gold, timeout, ordered)
        return _graded(equal, answer, gold, " (sympy)")
    except Incomparable as error:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"not comparable with {_shown(gold)}: {error}")
    except OutOfTime as error:
        return Verdict(0.0, Status.TIMEOUT, answer, f"not shown to equal {_shown(gold)}: {error}")


def grade(
    answer: str,
    gold: str,
    choices: Sequence[str] = (),
    timeout: float | None = TIME_LIMIT,
    ordered: bool = True,
) -> Verdict:
    """Return the verdict on a bare answer.

    Args:
        answer: the extracted answer.
        gold: the gold answer.
        choices: the options' texts in order A, B, …; empty for a free-form question.
        timeout: limit in seconds of a comparison in a worker process; None compares in this process, without
            limits.
        ordered: False if several values of a gold answer are a set, such as the solutions of an equation.
    """
    gold = stated_gold(gold)
    by_options = _grade_options(answer, gold, choices, timeout) if choices else None
    if by_options:
        return by_options
    lettered = lettered_gold(gold)
    if lettered:
        by_letter = _grade_lettered(answer, gold, *lettered)
        return by_letter or _grade_free_form(answer, lettered[1], timeout, ordered)
    letters = gold_letters(gold)
    by_letter = _grade_letters(answer, gold, letters) if letters else None
    return by_letter or _grade_free_form(answer, gold, timeout, ordered)


def equivalent(answer: Any, gold: Any, *, timeout: float | None = TIME_LIMIT, ordered: bool = True) -> bool:
    """Return whether a bare answer equals a gold answer; each is a text or a number.

    Also False if the gold answer cannot be scored or time runs out; ``verify`` distinguishes these cases.
    ``timeout=None`` compares in this process, without limits of time or memory. Raises ``TypeError`` for a
    value that is neither a text nor a number.
    """
    answer, gold = as_gold(answer, "answer"), as_gold(gold)
    return grade(answer, gold, timeout=timeout, ordered=ordered).status is Status.CORRECT


def names_option(gold: str) -> bool:
    """Return whether a gold answer is an option's letter, with or without its text."""
    gold = stated_gold(gold)
    return bool(gold_letters(gold) or lettered_gold(gold))


def _no_answer(gold: str, choices: Sequence[str]) -> Verdict:
    """Return the verdict on a missing answer: wrong, or none if the gold answer cannot be scored."""
    if not choices:
        try:
            read_gold(stated_gold(gold))
        except Unreadable as error:
            return _unscorable(None, error)
    return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")


def verify(
    completion: Any,
    gold: Any,
    *,
    choices: Any = (),
    timeout: float | None = TIME_LIMIT,
    ordered: bool = True,
) -> Verdict:
    """Extract the final answer of a completion and compare it with the gold answer.

    Args:
        completion: the model's complete text, or a conversation of chat messages, whose last message of the
            assistant counts.
        gold: the gold answer, a text or a number. The comparison is not symmetric.
        choices: the options' texts in order A, B, …; empty for a free-form question.
        timeout: limit in seconds of a comparison in a worker process; None compares in this process, without
            limits.
        ordered: False if several values of a gold answer are a set, such as the solutions of an equation.

    Raises:
        TypeError: a completion, gold answer or option of another type; see ``rewards.inputs``.
    """
    completion, gold, choices = as_completion(completion), as_gold(gold), as_choices(choices)
    answer = extract_answer(completion, lettered=bool(choices) or names_option(gold))
    return grade(answer, gold, choices, timeout, ordered) if answer else _no_answer(gold, choices)


def verify_many(
    completions: Sequence[Any],
    golds: Sequence[Any],
    *,
    choices: Sequence[Any] | None = None,
    timeout: float | None = TIME_LIMIT,
    ordered: bool = True,
) -> list[Verdict]:
    """Verify many pairs on all cores, in order; the arguments are lists of those of ``verify``.

    Raises ``ValueError`` if the lengths differ, and ``TypeError``, before anything is compared, for an
    element that ``verify`` refuses.
    """
    for name, value in (("completions", completions), ("golds", golds), ("choices", choices)):
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{name} is one {type(value).__name__}, not a list; verify takes a single pair")
    options = choices if choices is not None else [()] * len(golds)
    if not len(completions) == len(golds) == len(options):
        raise ValueError(
            f"{len(completions)} completions, {len(golds)} golds, {len(options)} choices: not the same number"
        )
    rows = [
        (
            as_completion(completion, f"completions[{i}]"),
            as_gold(gold, f"golds[{i}]"),
            as_choices(texts, f"choices[{i}]"),
        )
        for i, (completion, gold, texts) in enumerate(zip(completions, golds, options, strict=True))
    ]
    shared_pool().warm_up()
    return map_in_threads(
        lambda row: verify(row[0], row[1], choices=row[2], timeout=timeout, ordered=ordered), rows
    )
