"""Rule "program_output"."""

from __future__ import annotations

import pytest

from rewards import get_rule
from rewards.example import RewardExample as Example


@pytest.mark.parametrize(
    ("text", "score"),
    [("1 2\n3", 1.0), ("1 2 \r\n3\n\n", 1.0), ("```text\n1 2\n3\n```", 1.0), ("1  2\n3", 1.0), ("1 2", 0.0)],
)
def test_an_output_is_compared_by_lines_and_blanks_are_ignored(text: str, score: float) -> None:
    assert get_rule("program_output")(text, Example("1 2\n3")).score == score


def test_an_output_with_spacing_compares_blanks_within_lines() -> None:
    assert get_rule("program_output", {"spacing": True})("1  2", Example("1 2")).score == 0.0


def test_numbers_of_an_output_may_be_off_by_the_tolerance() -> None:
    rule = get_rule("program_output", {"tolerance": 0.01})
    assert rule("x 0.509", Example("x 0.5")).score == 1.0
    assert rule("x 0.511", Example("x 0.5")).score == 0.0
    assert rule("1010", Example("1000")).score == 1.0
    assert rule("nan", Example("0")).score == 0.0


def test_an_output_is_graded_by_the_share_of_lines_in_their_places() -> None:
    verdict = get_rule("program_output", {"by_line": True})("1\n2\n9\n4\n5", Example("1\n2\n3\n4"))
    assert verdict.score == pytest.approx(3 / 5)
    assert verdict.reason == "3 of 5 lines are right, the first that is not is line 3"
