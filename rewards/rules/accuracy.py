"""Rules that compare with the gold answer: "accuracy" (mathematics), "choice" and "exact" (text)."""

from __future__ import annotations

from rewards.extract import extract_answer
from rewards.math.choices import chosen, named
from rewards.math.clean import plain_text
from rewards.registry import Answerable, rule
from rewards.rules.common import Section, compared, graded, texts
from rewards.verdict import Status, Verdict
from rewards.verify import TIME_LIMIT, verify


@rule("accuracy")
def accuracy(completion: str, example: Answerable, timeout: float = TIME_LIMIT) -> Verdict:
    """1 if the final answer equals the gold answer in meaning (mathematics, options, words), else 0.

    Args:
        completion: the model's text.
        example: holds the gold answer and the options.
        timeout: seconds for a comparison that needs sympy.
    """
    return verify(completion, example.answer, choices=example.choices, timeout=timeout)


@rule("choice")
def choice(completion: str, example: Answerable) -> Verdict:
    """1 if the answer names the gold option(s), by letter, words or value, and no other, else 0."""
    wanted = chosen(example.answer, example.choices)
    if not wanted:
        reason = f"the gold answer {example.answer[:60]!r} names none of the {len(example.choices)} options"
        return Verdict(None, Status.UNPARSABLE_GOLD, None, reason)
    answer = extract_answer(completion)
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    picked = chosen(answer, example.choices)
    if not picked:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"{answer[:60]!r} names no option")
    reason = f"option {named(picked)} picked, {named(wanted)} is right"
    right = picked == wanted
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


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
