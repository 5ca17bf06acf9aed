"""Judges of declared benchmarks: replies of every form, asked twice, never wrong for want of a verdict."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from data import Example
from eval.benchmark import Response
from eval.declared.judge import judged
from eval.declared.schema import Judge
from eval.scoring.estimate import estimate
from rewards import Status, Verdict

EXAMPLE = Example("1", "How many?", "12", meta={"unit": "kg"})
WORDS = Judge.model_validate(
    {
        "prompt": "{{ question }} {{ gold }} {{ unit }}: {{ response }}",
        "reply": "words",
        "words": {"correct": 1, "incorrect": 0, "unclear": 0},
    }
)


def compare(text: str) -> Verdict:
    raise AssertionError("only for letters")


def ask(*replies: str) -> tuple[Callable[[str], str], list[str]]:
    seen: list[str] = []

    def answer(prompt: str) -> str:
        seen.append(prompt)
        return replies[min(len(seen), len(replies)) - 1]

    return answer, seen


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("correct", 1),
        ("Correct.", 1),
        ("**incorrect**", 0),
        ("<think>correct?</think>Incorrect", 0),
        ("```\ncorrect\n```", 1),
        ("Correct\n\nBoth name a dozen.", 1),
        ("The answers differ.\nincorrect", 0),
        ("unclear", 0),
        ('{"verdict": "correct", "reason": "same"}', 1),
    ],
)
def test_words_give_their_scores(reply: str, score: float) -> None:
    asked, seen = ask(reply)
    verdict = judged(WORDS, compare, EXAMPLE, Response("1", "a baker's dozen less one"), asked)
    assert verdict.score == score
    assert len(seen) == 1


@pytest.mark.parametrize("reply", ["", "correct or incorrect", "I am not sure", "correctness"])
def test_a_reply_without_a_verdict_is_asked_again_and_then_not_judged(reply: str) -> None:
    asked, seen = ask(reply)
    verdict = judged(WORDS, compare, EXAMPLE, Response("1", "a baker's dozen less one"), asked)
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)
    assert len(seen) == 2
    assert seen[1] == f"{seen[0]}\n\n{WORDS.reminder}"


def test_the_gold_answer_needs_no_request() -> None:
    asked, seen = ask("incorrect")
    assert judged(WORDS, compare, EXAMPLE, Response("1", "12"), asked).score == 1
    assert seen == []


def test_an_empty_response_needs_no_request() -> None:
    asked, seen = ask("correct")
    assert judged(WORDS, compare, EXAMPLE, Response("1", ""), asked).status is Status.NO_ANSWER
    assert seen == []


def test_the_prompt_has_columns_and_the_response_without_its_thinking() -> None:
    asked, seen = ask("correct")
    judged(WORDS, compare, EXAMPLE, Response("1", "<think>13</think>a dozen"), asked)
    assert seen == ["How many? 12 kg: a dozen"]


def test_braces_in_a_response_are_text() -> None:
    asked, seen = ask("correct")
    judged(WORDS, compare, EXAMPLE, Response("1", "so {{ gold }} and {% raw %}"), asked)
    assert seen == ["How many? 12 kg: so {{ gold }} and {% raw %}"]


LETTERS = Judge.model_validate({"prompt": "{{ response }}", "reply": "letters"})
SCORE = Judge.model_validate({"prompt": "{{ response }}", "reply": "score"})


@pytest.mark.parametrize("how", [WORDS, LETTERS, SCORE])
def test_the_estimate_counts_one_request_a_response(how: Judge) -> None:
    def judge(example: Example, response: Response, asked: Callable[[str], str]) -> Verdict:
        return judged(how, compare, example, response, asked)

    responses = [(EXAMPLE, Response("1", f"about {i} dozen")) for i in range(3)]
    assert estimate(judge, responses, lambda prompt: None).requests == 3
