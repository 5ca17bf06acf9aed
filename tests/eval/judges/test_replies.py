"""Replies that are a verdict in one word."""

from __future__ import annotations

import pytest

from eval.judges.replies import asked_twice, settled


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("1", True),
        ("0", False),
        (" 0.\n", False),
        ("**1**", True),
        ("Yes", True),
        ("no.", False),
        ('"Yes"', True),
        ("correct", True),
        ("Incorrect.", False),
        ("Judgement: 1", True),
        ("Judement: 0", False),
        ("判断：1", True),
        ("结果为0", False),
        ("`1`", True),
        ("```\n1\n```", True),
        ("```text\n0\n```", False),
        ("１", True),
        (r"\boxed{1}", True),
        ('{"judgement": 1}', True),
        ('```json\n{"verdict": "incorrect"}\n```', False),
        ("<think>Maybe 0?</think>1", True),
        ("1\n\nExplanation: 2 cm equals 20 mm", True),
        ("They differ in the unit.\n0", False),
        ("No\n\nThe values differ.", False),
    ],
)
def test_a_word_that_stands_alone_is_the_verdict(reply: str, found: bool) -> None:
    assert settled(reply) is found


@pytest.mark.parametrize(
    "reply",
    [
        "1\n0",
        "10",
        "0.5",
        "Score: 1/1",
        "it is neither 0 nor 1",
        "Yes or No",
        "Student's answer: 1",
        "<think>1",
        '{"verdict": "unclear"}',
        '{"verdict": "correct", "score": 0}',
        "",
    ],
)
def test_other_replies_are_unclear(reply: str) -> None:
    assert settled(reply) is None


def test_a_clear_reply_needs_no_second_request() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "No"

    assert asked_twice("p", "r", ask) == (False, "No")
    assert asked == ["p"]


def test_after_an_unclear_reply_the_request_is_repeated_once_with_a_reminder() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "perhaps"

    assert asked_twice("p", "r", ask) == (None, "perhaps")
    assert asked == ["p", "p\n\nr"]
