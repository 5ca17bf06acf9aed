"""Comparisons of an answer with the gold answer that several benchmarks share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from eval.official.verdicts import compared
from rewards import Status, Verdict
from rewards.extract.letters import letters_in
from rewards.math.bounds import Unreadable
from rewards.math.choices import find_options, gold_letters
from rewards.math.clean import plain_text
from rewards.messages import short
from rewards.rules.common import partial_credit
from rewards.rules.numeric import read_number

_TAGGED_NUMBER = re.compile(r"<answer>\s*(\d{1,30})\s*</answer>")
_YES_NO = re.compile(r"(?<![a-z])(yes|no)(?![a-z])")
# The time of an edit distance is the product of both lengths.
_MAX_CHARS = 5_000


def unreadable(answer: str, what: str) -> Verdict:
    """Return the verdict on an answer that is not ``what`` it should be."""
    return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"{short(answer, 60)!r} is not {what}")


def letter(answer: str, gold: str, choices: Sequence[str] = ()) -> Verdict:
    """Compare the options that an answer names, by letter or by text, with the gold ones, as sets."""
    wanted, picked = letters_of(gold, choices), letters_of(answer, choices)
    if not wanted:
        return Verdict(None, Status.UNPARSABLE_GOLD, answer, f"the gold answer {gold[:60]!r} names no option")
    if not picked:
        return unreadable(answer, "an option")
    right = picked == wanted
    reason = f"option {''.join(sorted(picked))} picked, {''.join(sorted(wanted))} is right"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, ", ".join(sorted(picked)), reason)


def letters_of(text: str, choices: Sequence[str] = ()) -> frozenset[str]:
    """Return the letters of the options that a text names, empty if it names none."""
    if choices:
        return frozenset(chr(65 + index) for index in find_options(text, choices))
    return frozenset(letters_in(text)) or frozenset(gold_letters(text) or ())


def yes_no(answer: str, gold: str) -> Verdict:
    """Compare yes or no; an answer that has neither word, or both, is unreadable."""
    found = {word.capitalize() for word in _YES_NO.findall(answer.lower())}
    if len(found) != 1:
        return unreadable(answer, "yes or no")
    return compared(found == {gold.capitalize()}, found.pop(), gold)


def number(answer: str, gold: str, absolute: float = 0.0, relative: float = 0.0) -> Verdict:
    """Compare numbers within the larger of an absolute and a relative tolerance; units are dropped."""
    try:
        wanted = float(read_number(gold)[0])
    except (Unreadable, OverflowError):
        return Verdict(None, Status.UNPARSABLE_GOLD, answer, f"the gold answer {gold[:60]!r} is no number")
    try:
        value = float(read_number(answer)[0])
    except (Unreadable, OverflowError):
        return unreadable(answer, "a number")
    return compared(abs(value - wanted) <= max(absolute, relative * abs(wanted)), answer, gold)


def tagged_number(response: str, gold: str) -> Verdict:
    """Compare the whole number in the first ``<answer>`` tag that holds nothing else (R1-V's rule)."""
    found = _TAGGED_NUMBER.search(response)
    if found is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "no <answer> tag holds a whole number")
    try:
        return compared(int(found[1]) == int(float(gold)), found[1], gold)
    except (ValueError, OverflowError):
        return Verdict(None, Status.UNPARSABLE_GOLD, found[1], f"the gold answer {gold[:60]!r} is no number")


def relaxed(answer: str, golds: Sequence[str], relative: float = 0.05) -> Verdict:
    """Compare numbers within a relative tolerance, other texts exactly but for case.

    A percentage counts as its hundredth, on both sides; a gold 0 is compared as text. Source: Masry et al.
    2022, arXiv 2203.10244, section 5.1, after Methani et al. 2020.
    """
    best = next((gold for gold in golds if _relaxed(answer.strip(), gold.strip(), relative)), None)
    return compared(best is not None, answer, best or golds[0])


def _relaxed(answer: str, gold: str, relative: float) -> bool:
    value, wanted = _percent_or_float(answer), _percent_or_float(gold)
    if value is not None and wanted:
        return abs(value - wanted) / abs(wanted) <= relative
    return answer.lower() == gold.lower()


def _percent_or_float(text: str) -> float | None:
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def anls(answer: str, golds: Sequence[str], threshold: float = 0.5) -> Verdict:
    """Return the normalised Levenshtein similarity to the nearest gold answer; 0 below the threshold.

    Case and runs of white space do not matter. Source: Biten et al. 2019, arXiv 1905.13648 (ANLS), and
    Mathew et al. 2021, arXiv 2007.00398 (DocVQA).
    """
    text = _plain(answer)
    near, best = max(((_similarity(text, _plain(gold)), gold) for gold in golds), key=lambda pair: pair[0])
    score = near if near >= threshold else 0.0
    reason = f"similarity {near:.3f} to {short(best, 60)!r}" + ("" if score else f", below {threshold}")
    return partial_credit(score, answer, reason)


def _plain(text: str) -> str:
    return " ".join(text[:_MAX_CHARS].lower().split())


def _similarity(answer: str, gold: str) -> float:
    return Levenshtein.normalized_similarity(answer, gold)


def same_text(answer: str, golds: Sequence[str]) -> Verdict:
    """Compare texts but for case, spacing, articles and end stops."""
    best = next((gold for gold in golds if plain_text(answer) == plain_text(gold)), None)
    return compared(best is not None, answer, best or golds[0])
