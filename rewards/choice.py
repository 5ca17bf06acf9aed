"""The rule "choice": has the right option been picked, and only that?"""

from __future__ import annotations

from rewards.extract import extract_answer
from rewards.options import chosen, named
from rewards.registry import Answerable, rule
from rewards.verdict import Status, Verdict


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
