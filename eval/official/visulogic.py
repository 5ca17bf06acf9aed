r"""Official scoring of VisuLogic: the letter in the last box, at the response's edges, or after "answer is".

Source: Xu et al. 2025, arXiv 2504.15279; ``evaluation/eval_model.py`` of
github.com/VisuLogic-Benchmark/VisuLogic-Eval, and ``vlmeval/dataset/utils/visulogic.py`` of
github.com/open-compass/VLMEvalKit, which has the same rules. Differences: the former asks gpt-4o-mini about a
response that the rules cannot read, which here has no answer, as in the latter; a box is unwrapped by this
project, there ``\text{}``, ``\rm`` and ``\mathbf{}`` are removed by name, and a box with more than two
characters is not read.
"""

from __future__ import annotations

import re

from eval.official.verdicts import picked
from rewards import Status, Verdict
from rewards.extract.marked import boxed

LETTERS = "ABCD"
_STYLE = re.compile(r"\\(?:text|rm|mathbf|mathrm)\s*\{?|[{}$\s]")
_PHRASES = (
    "answer:",
    "the final answer is:",
    "the answer is option:",
    "the answer is:",
    "the correct answer is option:",
    "the correct answer is:",
    "the answer should be:",
    "the final answer is",
    "the answer is option",
    "the answer is",
    "the correct answer is option",
    "the correct answer is",
    "the answer should be",
)


def grade(response: str, gold: str) -> Verdict:
    """Score a response as VisuLogic does."""
    letter = pick_letter(response)
    if letter is None:
        return Verdict(
            0.0, Status.NO_ANSWER, None, "no letter in a box, nor in the forms that the rule knows"
        )
    return picked(letter, gold)


def pick_letter(response: str) -> str | None:
    """Return the letter that a response gives by the rule, None if it gives none."""
    box = boxed(response)
    inside = _STYLE.sub("", box.text) if box else ""
    if inside and inside in LETTERS and len(inside) == 1:
        return inside
    return _at_the_edges(response.replace("<|endoftext|>", "")) or _after_a_phrase(response.lower())


def _at_the_edges(text: str) -> str | None:
    for letter in LETTERS:
        if text.endswith((f" {letter}.", f" ({letter}).")):
            return letter
        if text.startswith((f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")):
            return letter
    return text if len(text) == 1 and text in LETTERS else None


def _after_a_phrase(text: str) -> str | None:
    """Return the letter that alone follows the last of a phrase, up to the next stop or line.

    A phrase that is found shortens the text in which the later ones are looked for.
    """
    for phrase in _PHRASES:
        if phrase in text:
            text = text.split(phrase)[-1].strip().split("\n")[0].split(".")[0]
            if len(text) == 1 and text.upper() in LETTERS:
                return text.upper()
    return None
