"""Rules on length: "length" (tokens within a range) and "repetition" (share of repeated text)."""

from __future__ import annotations

from typing import Literal

from rewards.registry import Answerable, rule
from rewards.rules.common import Count, Positive, Section, Share, graded, section, words
from rewards.verdict import RuleError, Verdict


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
