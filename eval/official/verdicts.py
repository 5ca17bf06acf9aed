"""Verdicts that several official scorings give, with their reasons."""

from __future__ import annotations

from rewards import Status, Verdict
from rewards.messages import short


def compared(right: bool, answer: str | None, gold: str) -> Verdict:
    """Return the verdict on an answer, with a reason that quotes both."""
    relation = "is" if right else "is not"
    reason = f"{short(answer or '', 60)!r} {relation} {short(gold, 60)!r}"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


def picked(letter: str, gold: str) -> Verdict:
    """Return the verdict on the letter, or letters, of the option that a response picks."""
    right = letter == gold
    reason = f"option {letter} picked, {gold} is right"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, letter, reason)
