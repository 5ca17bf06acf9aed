r"""Extraction of MathVista's answers by rule, where the benchmark asks an LLM.

The benchmark's LLM copies an answer in the form that the row asks for: an option's letter, a number, a list.
Here the final answer that ``rewards`` finds takes that form: ``\boxed{\text{C}}``, "c", "C." and an option's
words or value become the option, ``\boxed{12\text{ cm}}``, ``\boxed{1,200}`` and ``\boxed{\frac{24}{2}}`` a
number. An LLM also understands answers that are not stated as such, so that an
accuracy obtained this way is not the benchmark's: ``docs/evaluation.md`` has the agreement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards import extract_answer
from rewards.extract.stance import refuses
from rewards.extract.statement import SENTENCE_END, one_number
from rewards.extract.turn import own_turn
from rewards.math.bounds import Unreadable
from rewards.math.choices import find_options
from rewards.math.numeric import evaluate
from rewards.math.read import AnswerItem, read_answer
from rewards.math.tree import exact_value

_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
# "There are 3 dots in each group", "**two** bars that are longer".
_COUNTED = re.compile(
    r"(?:there\s+(?:are|is|were|was)\s+)?\**(-?[\d,]*\d|[a-z]{3,})\**\s+"
    r"(?!(?:or|and|to|out|of|x|times|plus|minus|is|are|not|than)\b)[a-z]",
    re.IGNORECASE,
)
_ENCLOSED = re.compile(r"\s*[\[({](.*)[\])}]\s*", re.DOTALL)
_MAX_CHARS = 2_000


def extract_by_rule(response: str, answer_type: str, choices: Sequence[str] = ()) -> str | None:
    """Return the final answer of a response in the form of its row, or as it stands; None if there is none.

    Args:
        response: complete text of the model.
        answer_type: ``text`` (of an option), ``integer``, ``float`` or ``list``.
        choices: the options' texts in order A, B, …; empty for a free-form question.
    """
    answer = extract_answer(response, lettered=bool(choices))
    if choices:
        return _option(answer, response, choices)
    if answer is None or len(answer) > _MAX_CHARS:
        return answer
    if answer_type == "list":
        return _list(answer) or answer
    return (_number(answer) or answer) if answer_type in ("integer", "float") else answer


def _option(answer: str | None, response: str, choices: Sequence[str]) -> str | None:
    """Return the option that the answer names, else that of a leading "Yes" or "No", else the answer."""
    named = find_options(answer, choices) if answer else frozenset()
    if len(named) == 1:
        return choices[next(iter(named))]
    if named:
        return answer
    turn = own_turn(response)
    leading = _YES_NO.match(turn)
    said = [one for one in choices if leading and one.strip().lower() == leading[1].lower()]
    if len(said) == 1:
        return said[0]
    last = [one for one in SENTENCE_END.split(turn[-_MAX_CHARS:]) if one.strip()][-1:]
    named = find_options(last[0].strip(), choices) if last else frozenset()
    if len(named) == 1:
        return choices[next(iter(named))]
    return None if not answer or refuses(answer) else answer


def _number(answer: str) -> str | None:
    """Return the value of an answer that is one number, also with its unit or its calculation."""
    value = _value(answer)
    if value is None and "=" in answer:
        value = _value(answer.rpartition("=")[2])
    if value is not None:
        return value
    counted = _COUNTED.match(answer)
    number = counted[1] if counted else one_number(answer)
    return _value(number) if number else None


def _value(answer: str) -> str | None:
    try:
        items = read_answer(answer).items
    except Unreadable:
        return None
    return _of_item(items[0]) if len(items) == 1 else None


def _of_item(item: AnswerItem) -> str | None:
    if item.tree is None:
        return None
    exact = exact_value(item.tree)
    if exact is not None:
        return str(int(exact) if exact == int(exact) else float(exact))
    near = evaluate(item.tree, {})
    return str(near.z.real) if near is not None and not near.z.imag else None


def _list(answer: str) -> str | None:
    """Return an answer of several numbers as Python writes their list, with one space after a comma."""
    inner = _ENCLOSED.fullmatch(answer)
    numbers = [_value(part) for part in (inner[1] if inner else answer).split(",")]
    return f"[{', '.join(filter(None, numbers))}]" if all(numbers) and len(numbers) > 1 else None
