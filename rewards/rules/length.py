"""Rules "length" (words or characters within a range) and "repetition" (share of repeated n-grams)."""

from __future__ import annotations

from typing import Literal

from rewards.example import ExampleLike
from rewards.registry import rule
from rewards.rules.common import Count, Positive, Section, Share, partial_credit, section, words
from rewards.verdict import RuleError, Verdict


@rule("length")
def length(
    completion: str,
    example: ExampleLike,
    longest: Positive,
    shortest: Count = 0,
    slack: Count = 0,
    unit: Literal["words", "characters"] = "words",
    read: Section = "everything",
) -> Verdict:
    """1 for a length within the range, decreasing linearly to 0 at ``slack`` above or below it.

    The overlong penalty of DAPO (arXiv 2503.14476, equation 13) is this score minus 1, with L_max − L_cache
    as ``longest`` and L_cache as ``slack``; group-relative advantages are the same. Token counts are known to
    the trainer only.

    Args:
        completion: the model's text.
        example: not used.
        longest: the greatest length with the full score.
        shortest: the smallest length with the full score.
        slack: the distance from these at which the score reaches 0.
        unit: the unit of length; each Chinese character is a word.
        read: the section of the completion to measure; a missing one has length 0.
    """
    if shortest > longest:
        raise RuleError(f"rule 'length': shortest {shortest} is above longest {longest}; swap them")
    text = section(completion, read) or ""
    size = len(words(text)) if unit == "words" else len(text)
    off = max(shortest - size, size - longest, 0)
    score = 1 - off / slack if slack else float(off == 0)
    band = f"at most {longest:,}" if not shortest else f"{shortest:,} to {longest:,}"
    return partial_credit(score, None, f"{size:,} {unit}, required are {band}")


MAX_READ = 200_000


def repeated_share(text: str, n: int) -> float:
    """Return the share of n-grams of words that occurred before; 0 for a text of fewer than n words."""
    found = words(text[:MAX_READ])
    total = len(found) - n + 1
    if total <= 0:
        return 0.0
    return 1 - len({tuple(found[i : i + n]) for i in range(total)}) / total


@rule("repetition")
def repetition(
    completion: str, example: ExampleLike, n: Positive = 4, allowed: Share = 0.0, read: Section = "everything"
) -> Verdict:
    """1 minus the share of repeated n-grams of words above the allowed share.

    Args:
        completion: the model's text.
        example: not used.
        n: number of words in an n-gram.
        allowed: the share with the full score; above it the score decreases linearly to 0 at a share of 1.
        read: the section of the completion to measure; a missing one repeats nothing.
    """
    share = repeated_share(section(completion, read) or "", min(n, MAX_READ))
    over = max(0.0, share - allowed)
    return partial_credit(
        1 - over / (1 - allowed) if over else 1.0, None, f"{share:.1%} of the {n}-grams are repeated"
    )
