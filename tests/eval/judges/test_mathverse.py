"""MathVerse's two stages with the published prompts."""

from __future__ import annotations

import pytest

from data import Example
from eval.benchmark import ByJudge, Response
from eval.judges.mathverse import judge_as_mm_eureka, judge_as_published
from eval.scoring.judgement import ONE_DIGIT
from rewards import Status
from tests.fakes.judging import Replies

EXAMPLE = Example(
    "1",
    "The question is written in the image.",
    "14 cm",
    meta={"question": "", "question_for_eval": "How long is L?"},
)
TEXT = Response("1", "So L is 14.")
BOTH = pytest.mark.parametrize("judge", [judge_as_published, judge_as_mm_eureka])


@BOTH
@pytest.mark.parametrize(("digit", "status"), [("1", Status.CORRECT), ("0", Status.WRONG)])
def test_the_answer_is_extracted_and_then_judged(judge: ByJudge, digit: str, status: Status) -> None:
    ask = Replies("Extracted Answer: 14", digit)
    verdict = judge(EXAMPLE, TEXT, ask)
    assert (verdict.status, verdict.extracted) == (status, "14")
    extraction, judgement = ask.prompts
    assert extraction.endswith("Model response: 'So L is 14.'\nExtracted Answer: ")
    assert "[Standard Answer]: 14 cm\n" in judgement
    assert "[Model_answer] : 14\n" in judgement


@BOTH
def test_a_stored_extraction_is_not_asked_for(judge: ByJudge) -> None:
    ask = Replies("1")
    assert judge(EXAMPLE, Response("1", "", extraction="140 mm"), ask).score == 1
    assert "[Model_answer] : 140 mm" in ask.prompts[0]


@BOTH
def test_a_thinking_judges_thoughts_are_no_part_of_the_extraction(judge: ByJudge) -> None:
    ask = Replies("<think>13 or 14?</think>14", "1")
    assert judge(EXAMPLE, TEXT, ask).extracted == "14"


@BOTH
def test_an_unclear_judgement_is_asked_for_again_and_then_not_judged(judge: ByJudge) -> None:
    ask = Replies("14", "maybe", "perhaps")
    verdict = judge(EXAMPLE, TEXT, ask)
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)
    assert ask.prompts[2] == ask.prompts[1] + ONE_DIGIT


@BOTH
def test_an_empty_response_is_wrong_without_a_request(judge: ByJudge) -> None:
    assert judge(EXAMPLE, Response("1", ""), Replies()).status is Status.NO_ANSWER


def test_published_judges_the_gold_text_too_and_shows_the_rows_question() -> None:
    ask = Replies("14 cm", "1")
    assert judge_as_published(EXAMPLE, TEXT, ask).score == 1
    assert "[Question]: \n[Standard Answer]: 14 cm" in ask.prompts[1]


def test_mm_eureka_accepts_the_gold_text_and_shows_the_question_for_evaluation() -> None:
    ask = Replies("14 cm")
    assert judge_as_mm_eureka(EXAMPLE, TEXT, ask).score == 1
    assert len(ask.prompts) == 1
    ask = Replies("15 cm", "0")
    judge_as_mm_eureka(EXAMPLE, TEXT, ask)
    assert "[Question]: How long is L?" in ask.prompts[1]
