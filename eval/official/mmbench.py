"""Official scoring of MMBench without its LLM: the option that a response names, by letter or by text.

Punctuation is dropped; the response names an option if exactly one letter of an option is among its words,
and that word first occurs among the last four. Otherwise "answer is" and a letter from A to D counts, or the
text of exactly one option, unless the response is more than twice as long as all options together. The
benchmark asks ChatGPT about the remaining responses; here they have no answer.

Source: Liu et al. 2023, arXiv 2307.06281, and ``vlmeval/utils/matching_util.py`` of
github.com/open-compass/VLMEvalKit, by the same authors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.official.verdicts import picked
from rewards import Status, Verdict

PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)
# Of VLMEvalKit's list of refusals.
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_LAST_WORDS = 4


def grade(response: str, gold: str, options: Sequence[str]) -> Verdict:
    """Score a response as MMBench does, where it needs no LLM."""
    letter = pick_option(response, options)
    if letter is None:
        reason = "the rule finds no single option, and the benchmark would ask an LLM: --protocol judge"
        return Verdict(0.0, Status.NO_ANSWER, None, reason)
    return picked(letter, gold)


def pick_option(response: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that the rule finds, None if it finds none."""
    if any(refusal in response for refusal in REFUSALS):
        return None
    letters = [chr(65 + index) for index in range(len(options))]
    words = response.translate(PUNCTUATION).split()
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    if not named and "Z" in words:
        return None
    phrase = _ANSWER_IS.search(response)
    if phrase and phrase[1].upper() in letters:
        return phrase[1].upper()
    return spelled_option(response, options) if len(response) <= 2 * sum(map(len, options)) else None


def spelled_option(text: str, options: Sequence[str]) -> str | None:
    """Return the letter of the only option whose text occurs, None if none or several do."""
    lower = text.lower()
    named = [chr(65 + index) for index, option in enumerate(options) if option.lower() in lower]
    return named[0] if len(named) == 1 else None
