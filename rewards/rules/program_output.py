"""Rule "program_output": comparison of a predicted output with the expected one. No code is run."""

from __future__ import annotations

import re
from typing import Any

from rewards.example import ExampleLike
from rewards.registry import rule
from rewards.rules.common import NonNegative, Section, partial_credit, score_against_gold, strip_code_fence
from rewards.verdict import Verdict

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")


def output_lines(text: str) -> list[str]:
    """Return the lines (of the code fence, if any) without trailing blanks and surrounding empty lines."""
    lines = [line.rstrip() for line in strip_code_fence(text).splitlines()]
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
    example: ExampleLike,
    read: Section = "text",
    gold: str = "answer",
    tolerance: NonNegative = 0.0,
    spacing: bool = False,
    by_line: bool = False,
) -> Verdict:
    """1 if the answer is the gold output line by line, ignoring blanks, else 0. Runs no code.

    Args:
        completion: the model's text: the output it predicts, in a code fence or bare.
        example: holds the gold output.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold output.
        tolerance: allowed difference of numbers: absolute for gold numbers up to 1, relative above.
        spacing: True also compares the blanks within lines.
        by_line: True scores the share of lines that are right and in their places.
    """

    def parse_gold(value: Any) -> list[str]:
        return output_lines(str(value))

    def compare(text: str, wanted: list[str]) -> Verdict:
        lines = output_lines(text)
        right = [_same_line(a, g, tolerance, spacing) for a, g in zip(lines, wanted, strict=False)]
        total = max(len(lines), len(wanted))
        score = sum(right) / total if total else 1.0
        if score == 1:
            return partial_credit(1.0, text, f"all {total} lines are right")
        first = right.index(False) + 1 if False in right else len(right) + 1
        reason = f"{sum(right)} of {total} lines are right, the first that is not is line {first}"
        return partial_credit(score if by_line else 0.0, text, reason)

    return score_against_gold(completion, example, read, gold, parse_gold, compare)
