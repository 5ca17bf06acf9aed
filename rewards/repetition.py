"""The rule "repetition": how much of a text says the same again?"""

from __future__ import annotations

from rewards.limits import Positive, Share
from rewards.registry import Answerable, rule
from rewards.sides import Section, graded, section
from rewards.verdict import Verdict
from rewards.words import words

MAX_READ = 200_000


def repeated_share(text: str, n: int) -> float:
    """The share of the n-grams of words that have occurred before; 0 for a text of fewer than n words."""
    found = words(text[:MAX_READ])
    total = len(found) - n + 1
    if total <= 0:
        return 0.0
    return 1 - len({tuple(found[i : i + n]) for i in range(total)}) / total


@rule("repetition")
def repetition(
    completion: str, example: Answerable, n: Positive = 4, allowed: Share = 0.0, read: Section = "everything"
) -> Verdict:
    """1 less the share of repeated n-grams of words; up to the allowed share nothing is taken off.

    Args:
        completion: the model's text.
        example: not looked at.
        n: how many words an n-gram has.
        allowed: the share that costs nothing; from there the grade falls evenly to 0 where all is repeated.
        read: the part of the completion that is measured; a missing one repeats nothing.
    """
    share = repeated_share(section(completion, read) or "", min(n, MAX_READ))
    over = max(0.0, share - allowed)
    return graded(
        1 - over / (1 - allowed) if over else 1.0, None, f"{share:.1%} of the {n}-grams are repeated"
    )
