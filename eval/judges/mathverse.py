"""MathVerse's two stages with an LLM, extraction and judgement, with the published prompts.

``judge_as_published``: ``evaluation/{extract_answer_s1,score_answer_s2}.py`` of
github.com/ZrrSkywalker/MathVerse (Zhang et al. 2024, arXiv 2403.14624). Every extraction is judged, the gold
answer's own text too; the question is the row's ``question``, empty for Vision Only.

``judge_as_mm_eureka``: ``eval/mathverse/extract_calculate.py`` of github.com/ModalMinds/MM-EUREKA. An
extraction that is the gold answer's text is right without a request; the question is ``question_for_eval``.

Differences from both: an unclear reply is followed by one more request and is then not judged; the former
asks until it is clear, the latter five times and then counts it as wrong. An empty response is wrong
without a request.
"""

from __future__ import annotations

from data import Example
from eval.benchmark import Ask, Response
from eval.judges.wording import filled
from eval.scoring.judgement import ONE_DIGIT, judged_by_digit
from rewards import Status, Verdict
from rewards.extract import after_thinking
from rewards.messages import short

_LABEL = "Extracted Answer:"


def judge_as_published(example: Example, response: Response, ask: Ask) -> Verdict:
    """Extract, unless an extraction is stored, and judge, as MathVerse does. Raises what ``ask`` raises."""
    answer = _extraction("mathverse_extraction", response, ask)
    if answer is None:
        return _empty()
    return _judged("mathverse_judgement", example, str(example.meta.get("question") or ""), answer, ask)


def judge_as_mm_eureka(example: Example, response: Response, ask: Ask) -> Verdict:
    """Extract, unless an extraction is stored, and judge, as MM-EUREKA does. Raises what ``ask`` raises."""
    answer = _extraction("mm_eureka_mathverse_extraction", response, ask)
    if answer is None:
        return _empty()
    if answer == example.answer.strip():
        return Verdict(1.0, Status.CORRECT, answer, f"{short(answer, 60)} is the gold answer; no judge asked")
    question = str(example.meta.get("question_for_eval") or example.question)
    return _judged("mm_eureka_mathverse_judgement", example, question, answer, ask)


def _empty() -> Verdict:
    return Verdict(0.0, Status.NO_ANSWER, None, "the response is empty")


def _extraction(prompt: str, response: Response, ask: Ask) -> str | None:
    """Return the stored or the judge's extraction, None for an empty response."""
    if response.extraction is not None:
        return response.extraction.strip()
    if not response.text.strip():
        return None
    reply = after_thinking(ask(filled(prompt, response=response.text)))
    return reply.replace(_LABEL, "").strip()


def _judged(prompt: str, example: Example, question: str, answer: str, ask: Ask) -> Verdict:
    asked = filled(prompt, question=question, gold=example.answer, answer=answer)

    def reason(right: bool) -> str:
        found = "consistent" if right else "not consistent"
        return f"the judge finds {short(answer, 60)!r} {found} with {short(example.answer, 60)!r}"

    return judged_by_digit(asked, ONE_DIGIT, ask, answer, reason)
