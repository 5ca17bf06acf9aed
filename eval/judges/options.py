r"""MM-EUREKA's scoring of MathVista and MathVision: options inferred by rule, other answers by an LLM.

Source: ``eval/{mathvista,mathvision}/extract_calculate.py`` of github.com/ModalMinds/MM-EUREKA, a rule that
VLMEvalKit has too. An option is inferred from the whole response: the only option letter that occurs as a
word of its own, the article "A" included, else the only option whose text occurs anywhere. If neither does,
GPT-4o extracts an answer, from which the option is inferred in the same way. Without options the extraction
is compared: MathVista's integers and floats must be equal, without rounding to the row's precision, and its
lists are always wrong; MathVision's answers must be the same text or the same value within 1e-6.

Differences from that code: the extraction prompt is this project's (its examples are MathVista's, whose
licence is not this project's); no text is evaluated as Python, values are parsed by ``rewards``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data import Example
from eval.benchmark import Ask, ByJudge, Response
from eval.judges.wording import filled
from eval.official.mmbench import PUNCTUATION, REFUSALS, spelled_option
from rewards import Status, Verdict
from rewards.extract import after_thinking
from rewards.math.bounds import Unreadable
from rewards.math.clean import clean
from rewards.math.numeric import evaluate
from rewards.math.parser import parse
from rewards.messages import short

_NO_OPTION = "Z"
_TOLERANCE = 1e-6
_MAX_CHARS = 2_000


def infer_option(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter that a text names by the rule, "Z" for a refusal, None if none or several."""
    if any(words in text for words in REFUSALS):
        return _NO_OPTION
    words = set(text.translate(PUNCTUATION).split())
    letters = [chr(65 + i) for i in range(len(choices))]
    named = [letter for letter in letters if letter in words]
    if len(named) == 1:
        return named[0]
    if not named and _NO_OPTION in words:
        return _NO_OPTION
    return spelled_option(text, choices)


def judge_with_options(
    gold_letter: Callable[[Example], str],
    equal: Callable[[Example, str], bool],
    question: Callable[[Example], str],
    *,
    after_tag: bool = False,
) -> ByJudge:
    """Return MM-EUREKA's judge for a benchmark.

    Args:
        gold_letter: letter of a question with options.
        equal: whether an extraction is the gold answer of a question without options.
        question: the question as the extraction prompt has it.
        after_tag: extract from what follows the last ``<answer>``, if there is one.
    """

    def extracted(example: Example, text: str, ask: Ask) -> str:
        shown = text.rpartition("<answer>")[2] if after_tag else text
        reply = ask(filled("extraction", question=question(example), response=shown))
        return after_thinking(reply).strip()

    def judge(example: Example, response: Response, ask: Ask) -> Verdict:
        text = response.text
        if not text.strip():
            return Verdict(0.0, Status.NO_ANSWER, None, "the response is empty")
        if example.choices:
            extraction = infer_option(text, example.choices) or extracted(example, text, ask)
            picked = infer_option(extraction, example.choices)
            return _graded(picked == gold_letter(example), extraction, example, picked or "no option")
        right, extraction = equal(example, text), text
        if not right:
            extraction = extracted(example, text, ask)
            right = equal(example, extraction)
        return _graded(right, extraction, example, short(extraction, 60))

    return judge


def _graded(right: bool, extraction: str, example: Example, taken: str) -> Verdict:
    status = Status.CORRECT if right else Status.WRONG
    relation = "is" if right else "is not"
    reason = f"{short(extraction, 60)!r}, taken as {taken!r}, {relation} {short(example.answer, 60)!r}"
    return Verdict(float(right), status, extraction or None, reason)


def equal_by_type(example: Example, extraction: str) -> bool:
    """Return whether an extraction is the gold answer by the type of MathVista's row; a list never is."""
    kind = {"integer": int, "float": float}.get(str(example.meta["answer_type"]))
    try:
        return kind is not None and kind(extraction[:_MAX_CHARS]) == kind(example.answer)
    except ValueError:
        return False


def equal_by_value(example: Example, extraction: str) -> bool:
    """Return whether an extraction is the gold answer's text, ignoring case, or its value within 1e-6."""
    answer, gold = extraction.lower().strip(), example.answer.lower().strip()
    if answer == gold:
        return True
    value, wanted = _value(extraction), _value(example.answer)
    return value is not None and wanted is not None and abs(value - wanted) < _TOLERANCE


def _value(text: str) -> complex | None:
    try:
        found = evaluate(parse(clean(text[:_MAX_CHARS])), {})
    except Unreadable:
        return None
    return None if found is None else found.z
