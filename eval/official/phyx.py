r"""Official scoring of PhyX by rules: the letter after "answer" or "option", or the boxed value as text.

Source: Shen et al. 2025, arXiv 2505.15929; the authors' rules in ``vlmeval/dataset/utils/phyx.py`` of
github.com/open-compass/VLMEvalKit and ``lmms_eval/tasks/phyx/phyx_evals.py`` of
github.com/EvolvingLMMs-Lab/lmms-eval. Published numbers let an LLM (DeepSeek-V3) compare where these rules
find no match; an open answer that is not the gold text is then often right, so compare only numbers of the
same protocol. A letter is found if it stands anywhere after the first of these words, so "The correct rule
here is Ampère's law" is the option A.
"""

from __future__ import annotations

import re

from rewards import Status, Verdict
from rewards.messages import short

_AFTER_A_WORD = re.compile(r"\b(?:correct|answer|option|Answer|Option|Correct)\b[\s\S]*?([A-D])")
_BEFORE_COLON = re.compile(r"([ABCD]):")
_AFTER_A_PHRASE = re.compile(
    r"\b(?:final\s+answer|correct\s+answer)\b[^:：]*[:：]\s*(.*?)(?=\n\n\n|\Z)", re.IGNORECASE | re.DOTALL
)
_BOX = r"\boxed{"
_MAX_CHARS = 20_000


def grade_choice(response: str, gold: str) -> Verdict:
    """Score a response to a multiple-choice question; ``gold`` is a letter."""
    text = response.strip()[-_MAX_CHARS:]
    named = _AFTER_A_WORD.search(text)
    letters = [named[1]] if named else _BEFORE_COLON.findall(text)[-1:]
    if letters == [gold] or any(form in text for form in (f"{gold}:", f"{gold}**", f"**{gold}")):
        return Verdict(1.0, Status.CORRECT, gold, f"option {gold} picked, which is right")
    if text == gold:
        return Verdict(1.0, Status.CORRECT, gold, f"the response is {gold}")
    if not letters and text not in ("A", "B", "C", "D"):
        return Verdict(0.0, Status.NO_ANSWER, None, "the rules find no option")
    letter = letters[0] if letters else text
    return Verdict(0.0, Status.WRONG, letter, f"option {letter} picked, {gold} is right")


def grade_open(response: str, gold: str) -> Verdict:
    """Score a response to an open question: the extracted answer is the gold text, or the response has it."""
    text, wanted = response.strip()[-_MAX_CHARS:], gold.strip()
    answer = _mapped(_box(text) or _after_a_phrase(text) or "")
    if wanted.lower() in (answer.strip().lower(), text.lower()) or wanted in text:
        return Verdict(1.0, Status.CORRECT, answer or wanted, f"the response gives {short(wanted, 60)!r}")
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "the rules find no answer")
    reason = f"{short(answer, 60)!r} is not the text {short(wanted, 60)!r}; an LLM might find them equal"
    return Verdict(0.0, Status.WRONG, answer, reason)


def _after_a_phrase(text: str) -> str | None:
    found = _AFTER_A_PHRASE.search(text)
    return found[1] if found else None


def _box(text: str) -> str | None:
    """Return the content of the first box."""
    start = text.find(_BOX)
    depth = 0
    for place, character in enumerate(text[start + len(_BOX) :] if start >= 0 else ""):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return text[start + len(_BOX) :][:place]
    return None


def _mapped(text: str) -> str:
    return text.replace(r"\dfrac", r"\frac").replace(r"\pi", "3.14")
