"""Verdicts that several official scorings give."""

from __future__ import annotations

from eval.official.verdicts import compared, picked
from rewards import Status


def test_an_answer_is_quoted_beside_the_gold_one() -> None:
    verdict = compared(False, "7", "8")
    assert (verdict.score, verdict.status, verdict.extracted) == (0.0, Status.WRONG, "7")
    assert verdict.reason == "'7' is not '8'"
    assert compared(True, "8", "8").reason == "'8' is '8'"


def test_an_option_is_right_if_it_is_the_gold_one() -> None:
    assert picked("B", "B").score == 1
    assert picked("B", "C").reason == "option B picked, C is right"
