"""Official scoring of MathVista: from an extraction and a row to a prediction and a verdict.

A multiple-choice extraction becomes the text of an option, by its letter or else by the smallest edit
distance; a number is rounded to the row's precision; then texts are compared.

Source: Lu et al. 2024, arXiv 2310.02255, and the folder ``evaluation`` of github.com/lupantech/MathVista
(``calculate_score.py``, and ``extract_answer.py`` for what needs no LLM). Options are compared by text,
because some rows have the same one twice (740, 781). Difference from that code: a precision is converted to
an integer first, because copies of the data have 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from rewards import Status, Verdict
from rewards.messages import short

_LETTER = re.compile(r"\(([a-zA-Z])\)")
_QUOTED = re.compile(r'The answer is "(.*)"\.')
# The time of an edit distance is the product of both lengths; longer texts are cut.
_MAX_CHARS = 20_000


def quick_extraction(response: str, answer_type: str, choices: Sequence[str] = ()) -> str | None:
    """Return the extraction of a response that is the answer alone, or quotes it; None for any other."""
    if not response or response in choices:
        return response
    kind = {"integer": int, "float": float}.get(answer_type)
    try:
        if kind is not None:
            return str(kind(response))
    except ValueError:
        pass
    quoted = _QUOTED.search(response)
    return quoted[1] if quoted else None


def predict(
    extraction: str, answer_type: str, choices: Sequence[str] = (), precision: float | None = None
) -> str | None:
    """Return the option's text, or the number rounded for the row; None if the extraction is not a number.

    Args:
        extraction: answer extracted from a response.
        answer_type: ``text`` (of an option), ``integer``, ``float`` or ``list``.
        choices: the options' texts in order A, B, …; empty for a free-form question.
        precision: decimals of a float.
    """
    if choices:
        return _option(extraction.strip(), choices)
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))
        if answer_type == "float":
            return str(round(float(extraction), None if precision is None else int(precision)))
    except (ValueError, OverflowError):
        return None
    return extraction


def _option(extraction: str, choices: Sequence[str]) -> str:
    letter = _LETTER.search(extraction)
    named = letter[1].upper() if letter else extraction
    index = ord(named) - ord("A") if len(named) == 1 else -1
    if 0 <= index < len(choices):
        return choices[index]
    return min(choices, key=lambda choice: Levenshtein.distance(named[:_MAX_CHARS], choice))


def grade(
    extraction: str,
    gold: str,
    answer_type: str,
    choices: Sequence[str] = (),
    precision: float | None = None,
) -> Verdict:
    """Score an extraction as MathVista does; ``gold`` is the gold answer's text, others as in ``predict``."""
    prediction = predict(extraction, answer_type, choices, precision)
    if prediction is None:
        reason = f"{_quoted(extraction)} is not a number, but {answer_type} is required"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, extraction, reason)
    how = f"{_quoted(extraction)}, taken as {_quoted(prediction)},"
    if prediction == extraction:
        how = _quoted(prediction)
    if prediction == gold:
        return Verdict(1.0, Status.CORRECT, prediction, f"{how} is the gold answer")
    return Verdict(0.0, Status.WRONG, prediction, f"{how} is not the gold answer {_quoted(gold)}")


def _quoted(text: str) -> str:
    return repr(short(text, 60))
