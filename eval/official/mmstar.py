"""Official scoring of MMStar: the letter with which a response begins.

Source: Chen et al. 2024, arXiv 2403.20330, ``eval/vlmeval/evaluate/mmstar.py`` in
github.com/MMStar-Benchmark/MMStar. A response counts if, in lower case, it begins with the gold letter, with
"(" and the letter, "option " and the letter, or "the answer is " and the letter; whatever follows is not
read. So "Cats are …" is the option C, and a response that reasons first is wrong.
"""

from __future__ import annotations

from rewards import Status, Verdict
from rewards.messages import short

_OPENINGS = ("", "(", "option ", "the answer is ")
_LETTERS = "abcdefgh"


def grade(response: str, gold: str) -> Verdict:
    """Score a response as MMStar does."""
    text, wanted = response.lower().strip().replace("\n", " "), gold.lower().strip()
    letters = [
        text[len(opening)]
        for opening in _OPENINGS
        if text.startswith(opening) and len(text) > len(opening) and text[len(opening)] in _LETTERS
    ]
    if wanted in letters:
        return Verdict(1.0, Status.CORRECT, wanted.upper(), f"the response begins with {wanted.upper()}")
    if not letters:
        reason = f"the response begins with no letter of an option: {short(response, 40)!r}"
        return Verdict(0.0, Status.NO_ANSWER, None, reason)
    picked = letters[-1].upper()
    return Verdict(0.0, Status.WRONG, picked, f"the response begins with {picked}, {wanted.upper()} is right")
