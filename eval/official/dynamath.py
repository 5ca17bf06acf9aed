r"""Official scoring of DynaMath: the "short answer" of a JSON object, by the row's type of answer.

A float must be within 0.001 of the gold one (its first word counts, "2π" is 2π), a letter must be the gold
one, any other answer must occur in the gold answer, in any case.

Source: Zou et al. 2024, arXiv 2411.00836; ``evaluation/`` of github.com/DynaMath/DynaMath and
``vlmeval/dataset/dynamath.py`` of github.com/open-compass/VLMEvalKit. The two differ: there a text is right
if it contains the gold one (repository) or is contained in it (toolkit); here the toolkit's rule holds, by
which an empty answer would be right, so that one is wrong here. A response without a JSON object is read as
the short answer itself; where that fails the benchmark checks by hand and the toolkit asks an LLM, and here
it has no answer.
"""

from __future__ import annotations

import json
import math
import re

from eval.official.verdicts import compared
from rewards import Status, Verdict

TOLERANCE = 0.001
LETTERS = "ABCDE"
_SHORT_ANSWER = re.compile(r'"short answer"\s*:\s*("(?:[^"\\]|\\.)*"|[^,}\n]{1,200})')
_MAX_CHARS = 20_000


def grade(response: str, gold: str, answer_type: str) -> Verdict:
    """Score a response as DynaMath does.

    Args:
        response: complete text of the model.
        gold: the gold answer.
        answer_type: ``float``, ``multiple choice``, or a text.
    """
    text = response[-_MAX_CHARS:]
    stated = short_answer(text)
    answer = read(text.strip() if stated is None else stated, answer_type)
    if answer is None:
        reason = "no short answer of the type " + answer_type
        return Verdict(0.0, Status.NO_ANSWER if stated is None else Status.UNPARSABLE_ANSWER, stated, reason)
    return compared(_equal(answer, gold, answer_type), answer, gold)


def short_answer(text: str) -> str | None:
    """Return the value of the last "short answer" of a JSON object, None if there is none.

    The object need not be valid JSON: LaTeX in a solution often lacks its doubled backslashes.
    """
    found = _SHORT_ANSWER.findall(text)
    if not found:
        return None
    try:
        return str(json.loads(found[-1], strict=False)).strip()
    except ValueError:
        return str(found[-1]).strip().strip('"').strip()


def read(answer: str, answer_type: str) -> str | None:
    """Return an answer in the form that is compared, None if it does not have it."""
    if answer_type == "float":
        return None if _number(answer) is None else answer
    if answer_type == "multiple choice":
        if len(answer) == 1:
            return answer.upper()
        named = [letter for letter in LETTERS if letter in answer.upper()]
        return named[0] if len(named) == 1 else None
    return answer or None


def _number(answer: str) -> float | None:
    words = answer.split(" ")
    try:
        factor, sign, _ = words[0].partition("π")
        value = float(factor) * (math.pi if sign else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _equal(answer: str, gold: str, answer_type: str) -> bool:
    if answer_type == "float":
        value, wanted = _number(answer), _number(gold)
        return value is not None and wanted is not None and abs(value - wanted) <= TOLERANCE
    if answer_type == "multiple choice":
        return answer == gold.strip()
    return answer.lower() in gold.lower()
