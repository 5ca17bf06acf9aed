"""The rule "exact": the same text, up to spelling."""

from __future__ import annotations

from rewards.bounds import MAX_CHARS
from rewards.clean import plain_text
from rewards.extract import extract_answer
from rewards.registry import Answerable, rule
from rewards.verdict import Status, Verdict


@rule("exact")
def exact(completion: str, example: Answerable, extract: bool = True, normalise: bool = True) -> Verdict:
    """1 if the answer's text is the gold answer's: case, spacing, articles and end stops aside, else 0.

    Args:
        completion: the model's text.
        example: holds the gold answer.
        extract: False compares the whole completion.
        normalise: False compares character by character.
    """
    answer = extract_answer(completion) if extract else completion.strip()
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    gold = example.answer.strip()
    if not gold:
        return Verdict(None, Status.UNPARSABLE_GOLD, answer, "the gold answer is empty")
    sides = (plain_text(answer[:MAX_CHARS]), plain_text(gold)) if normalise else (answer, gold)
    if sides[0] == sides[1]:
        return Verdict(1.0, Status.CORRECT, answer, "the same text as the gold answer")
    return Verdict(0.0, Status.WRONG, answer, f"{sides[0][:60]!r} is not {sides[1][:60]!r}")
