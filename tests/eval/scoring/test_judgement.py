"""Verdicts in a judge's replies."""

from __future__ import annotations

from functools import partial

import pytest

from eval.scoring.judgement import (
    JudgeError,
    UnusableReply,
    asked_twice,
    lacks_reply,
    no_verdict,
    read_digit,
    read_judgement,
    unfenced,
)
from rewards import Status, Verdict


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ('```json\n{"verdict": "wrong", "reason": "no"}\n```', ("wrong", "no")),
        ('Here you are: {"verdict" :\n"Correct"} – I hope it helps', ("correct", "")),
        (
            r'{"verdict": "correct", "reason": "\frac{1}{2} is \sqrt{1/4}"}',
            ("correct", r"\frac{1}{2} is \sqrt{1/4}"),
        ),
        (
            '{"reason": "he says \\"verdict\\": \\"correct\\"", "verdict": "wrong"}',
            ("wrong", 'he says "verdict": "correct"'),
        ),
        ('<think>{"verdict": "wrong"}?</think>{"verdict": "correct"}', ("correct", "")),
        ('{"verdict": "correct"} or rather {"verdict": "wrong"}', (None, "")),
        ('{"verdict": "maybe", "reason": "hm"}', (None, "hm")),
        ("correct", (None, "")),
        ('{"verdict": "incorrect"}', ("wrong", "")),
        ('{"verdict": "Right."}', ("correct", "")),
        ('{"verdict": "correct" or "wrong"}', (None, "")),
        ("", (None, "")),
    ],
)
def test_replies_are_read_with_tolerance_and_without_guessing(
    reply: str, read: tuple[str | None, str]
) -> None:
    assert read_judgement(reply) == read


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        *[
            (text, 1)
            for text in (
                "1",
                " 1\n",
                "1.",
                "**1**",
                "[1]",
                "`1`",
                "\\boxed{1}",
                "$1$",
                "\uff11",
                "\u300c1\u300d",
            )
        ],
        *[
            (text, 1)
            for text in ("Yes", "yes.", "True", "correct", "one", "正确", "1/1", "Yes, both are 5 cm.")
        ],
        *[
            (text, 0)
            for text in ("0", "No", "Incorrect.", "Not correct", "错误", "不正确", "No, they differ.")
        ],
        ("<think>Maybe 0?</think>1", 1),
        ("<think>Is it 1?</think>\n\n0", 0),
        ("1\n\nExplanation: 2 cm equals 20 mm", 1),
        ("They agree.\n\n1.", 1),
        ("The units differ, so 0.", 0),
        ("1, because 2 cm equals 20 mm", 1),
        ("1（正确）", 1),
        ("0. The student's answer is 1 but it should be 0.", 0),
        ("```\n1\n```", 1),
        ('```json\n{"verdict": "correct"}\n```', 1),
        ('{"judgement": 0}', 0),
        ("Judgement: 1 (the option B:2)", 1),
        ("The verdict is 0 because the units differ.", 0),
        ("Score: 1/1", 1),
        ("Score: 0/1", 0),
        ("判断：1", 1),
        ("<answer>0</answer>", 0),
        ("<|begin_of_box|>1<|end_of_box|>", 1),
        ("Final verdict - 1", 1),
        ("1.0", 1),
        ("Score: 0.0", 0),
        ("Not equal.", 0),
        ("Consistent", 1),
        ("Correct. The student names it.", 1),
        ("The final answer is correct.", 1),
        ("结果为0", 0),
    ],
)
def test_a_digit_is_read_in_every_form_that_states_it(reply: str, verdict: int) -> None:
    assert read_digit(reply) == verdict


@pytest.mark.parametrize(
    "reply",
    [
        "", "no idea", "10", "0.5", "I'd say 0 or 1", "1\n0", "Judgement: 1 or 0", "Result: 1.5",
        "The student answered 1. The reference is 0.", "The student's result is 1", "The answer is 1",
        "The verdict is not 1", "1. First, the units\n2. Then the value", "Answer: 1\nReference: 2",
        "Student:\n1\nReference:\n2\nThey differ.", "Verdict: no doubt", "<think>It is 1", "It is wrong. 1",
        "Score: 0.5", "0-1", "The answer is no", "The reference answer is correct.", "1.05",
    ],
)  # fmt: skip
def test_a_digit_that_may_be_an_answer_and_no_verdict_is_not_taken(reply: str) -> None:
    assert read_digit(reply) is None


def test_a_long_reply_is_read_at_its_ends_in_little_time() -> None:
    assert read_digit("1\n" + "because " * 200_000) == 1
    assert read_digit("(" * 200_000 + "\nverdict: 0") == 0
    assert read_digit("judgement is " * 100_000) is None


def asked(*replies: str) -> tuple[tuple[int | None, str], list[str]]:
    left, prompts = list(replies), []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return left.pop(0)

    return asked_twice("1 or 0?", " Now!", ask, read_digit), prompts


def test_a_clear_reply_is_asked_for_once() -> None:
    assert asked("1") == ((1, "1"), ["1 or 0?"])


def test_an_unclear_reply_is_asked_for_again_with_the_reminder() -> None:
    assert asked("Hm.", "0") == ((0, "0"), ["1 or 0?", "1 or 0? Now!"])


def test_two_unclear_replies_are_no_verdict() -> None:
    assert asked("Hm.", "Well.") == ((None, "Well."), ["1 or 0?", "1 or 0? Now!"])


def test_an_unusable_reply_is_asked_for_again_and_a_missing_one_is_not() -> None:
    prompts: list[str] = []

    def ask(error: JudgeError, prompt: str) -> str:
        prompts.append(prompt)
        if len(prompts) < 2:
            raise error
        return "1"

    assert asked_twice("1 or 0?", " Now!", partial(ask, UnusableReply("empty")), read_digit) == (1, "1")
    assert prompts == ["1 or 0?", "1 or 0? Now!"]
    prompts.clear()
    with pytest.raises(JudgeError, match="status 500"):
        asked_twice("1 or 0?", " Now!", partial(ask, JudgeError("status 500")), read_digit)


def test_only_a_judge_that_did_not_reply_can_be_asked_again() -> None:
    assert lacks_reply(Verdict(None, Status.NOT_JUDGED, None, "the judge did not reply: status 500"))
    assert not lacks_reply(no_verdict("7", "Hm."))
    assert not lacks_reply(Verdict(0.0, Status.WRONG))


def test_an_extraction_is_taken_out_of_thinking_and_fences() -> None:
    assert unfenced("<think>14?</think>\n```text\n14 cm\n```\n") == "14 cm"
