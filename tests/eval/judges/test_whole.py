r"""Judges of a whole response, or of its marked answer."""

from __future__ import annotations

import pytest

from data import Example
from eval.benchmark import Response
from eval.judges.whole import REMINDER, judge_marked, judge_whole, question_of
from rewards import Status
from tests.fakes.judging import Replies

EXAMPLE = Example("1", "How long is AB?", "7 cm")


@pytest.mark.parametrize(("reply", "status"), [("Yes", Status.CORRECT), ("No", Status.WRONG)])
def test_the_reply_to_the_whole_response_decides(reply: str, status: Status) -> None:
    ask = Replies(reply)
    verdict = judge_whole(EXAMPLE, Response("1", r"First 6 cm, then \boxed{7\text{ cm}}."), ask)
    assert (verdict.status, verdict.score) == (status, float(reply == "Yes"))
    (prompt,) = ask.prompts
    assert r"First 6 cm, then \boxed{7\text{ cm}}." in prompt
    assert "How long is AB?" in prompt
    assert "Correct Answer:\n7 cm\n" in prompt


def test_an_unclear_reply_is_not_judged_after_a_second_request() -> None:
    ask = Replies("It depends.", "It depends.")
    verdict = judge_whole(EXAMPLE, Response("1", "7"), ask)
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)
    assert len(ask.prompts) == 2
    assert ask.prompts[1].endswith(REMINDER)


def test_an_empty_response_is_wrong_without_a_request() -> None:
    verdict = judge_whole(EXAMPLE, Response("1", " \n"), Replies())
    assert (verdict.score, verdict.status) == (0.0, Status.NO_ANSWER)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"<think>\boxed{A}</think><answer> B </answer>", "\nB\n"),
        (r"First \boxed{A}, in the end \boxed{C}", "\nC\n"),
        ("It is C.", "\nIt is C.\n"),
    ],
)
def test_the_marked_answer_is_shown_alone(text: str, shown: str) -> None:
    ask = Replies("No")
    judge_marked(EXAMPLE, Response("1", text), ask)
    assert f"Model's Answer:{shown}---" in ask.prompts[0]


def test_options_are_listed_unless_the_question_has_them() -> None:
    choices = ("red", "blue")
    assert question_of(Example("1", "Which?", "B", choices=choices)) == "Which?\n(A) red\n(B) blue"
    inline = "Which? A. red; B. blue"
    assert question_of(Example("1", inline, "B", choices=choices)) == inline


def test_several_gold_answers_are_one_below_the_other() -> None:
    ask = Replies("Yes")
    example = Example("1", "Solve.", "2", meta={"final_answer": ["2", "-2"]})
    judge_whole(example, Response("1", "2 and -2"), ask)
    assert "Correct Answer:\n2\n-2\n---" in ask.prompts[0]
