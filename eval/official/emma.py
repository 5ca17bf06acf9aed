r"""Official scoring of EMMA ("fast eval"): an answer found by rules, compared with the letter and its option.

Found is a response that is a letter or begins with "A:" or "A.", a number, the last box (in it the last
``\text{}``), or what follows the last "answer is" and its like up to the next line or stop. It must equal the
gold answer, or the gold option's text: as text, as a number in words, or as a formula.

Source: Hao et al. 2025, arXiv 2501.05444; ``evaluation/evaluate.py`` and ``evaluation/utils.py`` of
github.com/EMMA-Bench/EMMA. Difference from that code: formulas are compared by this project's parser within
0.005, there by latex2sympy after rounding to two decimals. The benchmark's other scoring lets GPT-4o judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rewards import Status, Verdict, equivalent
from rewards.extract.marked import boxed
from rewards.math.amounts.number_words import numbers_in
from rewards.math.bounds import Unreadable
from rewards.messages import short
from rewards.rules.numeric import read_number

LETTERS = "ABCDEFGH"
_TEXT = re.compile(r"\\text\{(.*?)\}")
_PHRASES = ("final answer is", "correct answer is", "answer should be", "answer is", "answer:")
_HALF_OF_LAST_PLACE = Fraction(5, 1000)
_MAX_CHARS = 2_000


def grade(response: str, gold: str, options: Sequence[str] = ()) -> Verdict:
    """Score a response as EMMA's fast eval does; ``gold`` is a letter, or the open answer."""
    answer = extract(response)
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "the rules find no answer")
    index = ord(gold.upper()) - 65 if len(gold) == 1 else -1
    content = options[index] if 0 <= index < len(options) else gold
    right = any(_equal(answer[:_MAX_CHARS], wanted) for wanted in dict.fromkeys((gold, content)))
    reason = f"{short(answer, 60)!r} {'is' if right else 'is neither'} {short(gold, 20)!r}"
    reason += "" if right or content == gold else f" nor {short(content, 60)!r}"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


def extract(response: str) -> str:
    """Return the answer that the rules find, empty if they find none."""
    text = response.strip()
    for letter in LETTERS:
        if text.upper() == letter or text.startswith((f"{letter}:", f"{letter}.")):
            return letter
    if _is_float(text):
        return text
    box = boxed(text) if "boxed{" in text else None
    if box:
        inner = _TEXT.findall(box.text)
        return (inner[-1] if inner else box.text).strip()
    lower = text.lower()
    phrase = next((one for one in _PHRASES if one in lower), None)
    return lower.split(phrase)[-1].strip().split("\n")[0].split(".")[0] if phrase else ""


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _equal(answer: str, gold: str) -> bool:
    answer, gold = answer.lower().strip(), gold.lower().strip()
    if answer == gold or [str(number) for number in numbers_in(answer)] == [gold]:
        return True
    if answer in LETTERS.lower() or gold in LETTERS.lower():
        return False
    return _close(answer, gold) or equivalent(answer, gold) is True


def _close(answer: str, gold: str) -> bool:
    try:
        (value, _), (wanted, _) = read_number(answer, alone=True), read_number(gold, alone=True)
    except (Unreadable, OverflowError, ValueError):
        return False
    return abs(value - wanted) < _HALF_OF_LAST_PLACE
