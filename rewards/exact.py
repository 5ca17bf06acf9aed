"""The rule "exact": the same text, up to spelling."""

from __future__ import annotations

from rewards.clean import plain_text
from rewards.registry import Answerable, rule
from rewards.sides import Section, compared, graded, texts
from rewards.verdict import Verdict


@rule("exact")
def exact(
    completion: str,
    example: Answerable,
    read: Section = "answer",
    gold: str = "answer",
    normalise: bool = True,
) -> Verdict:
    """1 if the answer's text is the gold answer's: case, spacing, articles and end stops aside, else 0.

    Args:
        completion: the model's text.
        example: holds the gold answer.
        read: the part of the completion to read.
        gold: "answer", or the example's meta column that holds the gold text or several of them.
        normalise: False compares character by character.
    """

    def spelled(text: str) -> str:
        return plain_text(text) if normalise else text.strip()

    def compare(text: str, golds: list[str]) -> Verdict:
        answer, wanted = spelled(text), [spelled(one) for one in golds]
        if answer in wanted:
            return graded(1.0, text, "the same text as the gold answer")
        others = f" nor {len(wanted) - 1} others" if len(wanted) > 1 else ""
        return graded(0.0, text, f"{answer[:60]!r} is not {wanted[0][:60]!r}{others}")

    return compared(completion, example, read, gold, texts, compare)
