"""Replies of one word."""

from __future__ import annotations

import pytest

from eval.judges.replies import ONE_ZERO, YES_NO, asked_twice, settled


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("1", True),
        ("0", False),
        (" 0.\n", False),
        ("**1**", True),
        ("Judgement: 1", True),
        ("Judement: 0", False),
        ("`1`", True),
        ("```\n1\n```", True),
        ("```text\n0\n```", False),
        ("１", True),
        ("<think>Maybe 0?</think>1", True),
        ("1\n\nExplanation: 2 cm equals 20 mm", True),
        ("They differ in the unit.\n0", False),
        ("1\n0", None),
        ("10", None),
        ("0.5", None),
        ("Score: 1/1", None),
        ("it is neither 0 nor 1", None),
        ("<think>1", None),
        ("", None),
    ],
)
def test_a_digit_is_read_if_it_stands_alone(reply: str, found: bool | None) -> None:
    assert settled(reply, ONE_ZERO) is found


@pytest.mark.parametrize(
    ("reply", "found"),
    [("Yes", True), ("no.", False), ('"Yes"', True), ("Yes, it does", None), ("Yes or No", None)],
)
def test_yes_or_no_is_read_if_it_stands_alone(reply: str, found: bool | None) -> None:
    assert settled(reply, YES_NO) is found


def test_a_clear_reply_needs_no_second_request() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "No"

    assert asked_twice("p", "r", YES_NO, ask) == (False, "No")
    assert asked == ["p"]


def test_after_an_unclear_reply_the_request_is_repeated_once_with_a_reminder() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "perhaps"

    assert asked_twice("p", "r", YES_NO, ask) == (None, "perhaps")
    assert asked == ["p", "p\n\nr"]
