r"""The answer within a gold column as data sets have it: ``#### 42``, ``\boxed{…}``, a worked solution."""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.extract.letters import unwrapped
from rewards.extract.marked import boxed, hashes
from rewards.extract.sentences import phrased

_LONG = 40
_PHRASE = re.compile(r"\b(?:answer|result)\s*(?:is|:)|答案(?:是|为|[:：])", re.IGNORECASE)
_LETTERED = re.compile(
    r"(?:[(\[]([A-J])[)\]]\s*(?=[\w$\\\"'-])|([A-J])[.):]\s+(?=\S)|([B-HJ])\s+(?=[A-Z][a-z]))(.+)", re.DOTALL
)


@lru_cache(maxsize=4096)
def stated_gold(gold: str) -> str:
    r"""Return the answer of a gold text: after ``####``, else its boxes, else what "the answer is" states.

    A text without these marks is returned as it is.
    """
    if "####" in gold and (found := hashes(gold)):
        return found.text.strip()
    if "\\boxed" in gold or "\\fbox" in gold:
        found = boxed(gold)
        return found.text.strip() if found and found.text.strip() else gold
    if _PHRASE.search(gold[-400:]) and (found := phrased(gold[-400:])):
        return found.text
    return gold


def lettered_gold(gold: str) -> tuple[str, str] | None:
    """Return the letter and the text of a gold option with both: "(D) Alina", "C. x = 42"; else None."""
    text = gold.strip().strip("$").strip()
    match = _LETTERED.fullmatch(text) if len(text) > 2 else None
    if not match:
        return None
    letter, rest = match.group(1) or match.group(2) or match.group(3), match.group(4).strip()
    if re.search(r"(?:^|[\s,;])[(\[]?[A-J][)\].:]\s", unwrapped(rest)):
        return None
    return letter, rest
