"""The rule "program_output": is what was printed what was expected? Compares texts and never runs code."""

from __future__ import annotations

import re
from typing import Any

from rewards.registry import Answerable, rule
from rewards.rules.common import NonNegative, Section, compared, graded, unfenced
from rewards.verdict import Verdict

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")


def output_lines(text: str) -> list[str]:
    """The lines, of the code fence if there is one, without blanks at their ends and empty lines around."""
    lines = [line.rstrip() for line in unfenced(text).splitlines()]
    filled = [i for i, line in enumerate(lines) if line]
    return lines[filled[0] : filled[-1] + 1] if filled else []


def _same_token(answer: str, gold: str, tolerance: float) -> bool:
    if answer == gold:
        return True
    if not (tolerance and _NUMBER.fullmatch(answer) and _NUMBER.fullmatch(gold)):
        return False
    a, g = float(answer), float(gold)
    return abs(a - g) <= tolerance * max(1.0, abs(g))


def _same_line(answer: str, gold: str, tolerance: float, spacing: bool) -> bool:
    separator = " " if spacing else None
    sides = answer.split(separator), gold.split(separator)
    return len(sides[0]) == len(sides[1]) and all(
        _same_token(a, g, tolerance) for a, g in zip(*sides, strict=True)
    )


@rule("program_output")
def program_output(
    completion: str,
    example: Answerable,
    read: Section = "text",
    gold: str = "answer",
    tolerance: NonNegative = 0.0,
    spacing: bool = False,
    by_line: bool = False,
) -> Verdict:
    """1 if the answer is the gold output line by line, else 0; blanks and line ends aside. Runs nothing.

    Args:
        completion: the model's text: the output it predicts, in a code fence or bare.
        example: holds the gold output.
        read: the part of the completion to read.
        gold: "answer", or the example's meta column that holds the gold output.
        tolerance: how far a number may be off: absolutely up to 1, as a share of the gold number above.
        spacing: True compares the blanks inside of lines too.
        by_line: True grades by the share of lines that are right, in their places.
    """

    def want(value: Any) -> list[str]:
        return output_lines(str(value))

    def compare(text: str, wanted: list[str]) -> Verdict:
        lines = output_lines(text)
        right = [_same_line(a, g, tolerance, spacing) for a, g in zip(lines, wanted, strict=False)]
        total = max(len(lines), len(wanted))
        grade = sum(right) / total if total else 1.0
        if grade == 1:
            return graded(1.0, text, f"all {total} lines are right")
        first = right.index(False) + 1 if False in right else len(right) + 1
        reason = f"{sum(right)} of {total} lines are right, the first that is not is line {first}"
        return graded(grade if by_line else 0.0, text, reason)

    return compared(completion, example, read, gold, want, compare)
