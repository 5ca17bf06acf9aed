"""Rules "accuracy" (mathematics), "choice" (options) and "exact" (text): comparison with the gold answer."""

from __future__ import annotations

from rewards.example import ExampleLike
from rewards.extract import extract_answer
from rewards.math.choices import find_options, option_letters
from rewards.math.clean import plain_text
from rewards.registry import rule
from rewards.rules.common import Section, as_texts, partial_credit, score_against_gold
from rewards.verdict import Status, Verdict
from rewards.verify import TIME_LIMIT, verify


@rule("accuracy")
def accuracy(
    completion: str, example: ExampleLike, timeout: float = TIME_LIMIT, ordered: bool = True
) -> Verdict:
    """1 if the final answer equals the gold answer in meaning (mathematics, options, words), else 0.

    Args:
        completion: the model's text.
        example: holds the gold answer and the options.
        timeout: limit in seconds of a comparison that needs sympy.
        ordered: False if the items of a gold answer such as "2, 3" may be named in any order.
    """
    return verify(completion, example.answer, choices=example.choices, timeout=timeout, ordered=ordered)


@rule("choice")
def choice(completion: str, example: ExampleLike) -> Verdict:
    """1 if the answer names the gold option(s), by letter, words or value, and no other, else 0."""
    wanted = find_options(example.answer, example.choices)
    if not wanted:
        reason = f"the gold answer {example.answer[:60]!r} names none of the {len(example.choices)} options"
        return Verdict(None, Status.UNPARSABLE_GOLD, None, reason)
    answer = extract_answer(completion)
    if not answer:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    picked = find_options(answer, example.choices)
    if not picked:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"{answer[:60]!r} names no option")
    reason = f"option {option_letters(picked)} picked, {option_letters(wanted)} is right"
    right = picked == wanted
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


@rule("exact")
def exact(
    completion: str,
    example: ExampleLike,
    read: Section = "answer",
    gold: str = "answer",
    normalise: bool = True,
) -> Verdict:
    """1 if the answer's text is the gold answer's, ignoring case, spacing, articles and end stops, else 0.

    Args:
        completion: the model's text.
        example: holds the gold answer.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold text or several of them.
        normalise: False compares character by character.
    """

    def normalised(text: str) -> str:
        return plain_text(text) if normalise else text.strip()

    def compare(text: str, golds: list[str]) -> Verdict:
        answer, wanted = normalised(text), [normalised(one) for one in golds]
        if answer in wanted:
            return partial_credit(1.0, text, "the same text as the gold answer")
        others = f" nor {len(wanted) - 1} others" if len(wanted) > 1 else ""
        return partial_credit(0.0, text, f"{answer[:60]!r} is not {wanted[0][:60]!r}{others}")

    return score_against_gold(completion, example, read, gold, as_texts, compare)
