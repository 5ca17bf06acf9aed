"""The rule "length": is the completion as long as it should be?"""

from __future__ import annotations

from typing import Literal

from rewards.errors import RuleError
from rewards.limits import Count, Positive
from rewards.registry import Answerable, rule
from rewards.sides import Section, graded, section
from rewards.verdict import Verdict
from rewards.words import words


@rule("length")
def length(
    completion: str,
    example: Answerable,
    longest: Positive,
    shortest: Count = 0,
    slack: Count = 0,
    unit: Literal["words", "characters"] = "words",
    read: Section = "everything",
) -> Verdict:
    """1 for a text of the right length, falling evenly to 0 at ``slack`` too long or too short.

    The overlong penalty of DAPO (arXiv 2503.14476, equation 13) is this less 1, which advantages within a
    group do not notice: its L_max − L_cache is ``longest`` and its L_cache is ``slack``. Tokens are the
    trainer's to count.

    Args:
        completion: the model's text.
        example: not looked at.
        longest: the greatest length that costs nothing.
        shortest: the smallest length that costs nothing.
        slack: how far from these the grade reaches 0.
        unit: what is counted; each Chinese sign is a word.
        read: the part of the completion that is measured; a missing one has length 0.
    """
    if shortest > longest:
        raise RuleError(f"rule 'length': shortest {shortest} is above longest {longest}; swap them")
    text = section(completion, read) or ""
    size = len(words(text)) if unit == "words" else len(text)
    off = max(shortest - size, size - longest, 0)
    grade = 1 - off / slack if slack else float(off == 0)
    band = f"at most {longest:,}" if not shortest else f"{shortest:,} to {longest:,}"
    return graded(grade, None, f"{size:,} {unit}, wanted are {band}")
