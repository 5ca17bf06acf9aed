"""Scoring of a response to a declared benchmark by an LLM, with the benchmark's prompt or an own one."""

from __future__ import annotations

import re
from collections.abc import Callable

from data import Example
from eval.benchmark import Ask, Response
from eval.declared.schema import Judge
from eval.declared.templates import Template
from eval.scoring.judge import is_gold_answer, read_judgement
from rewards import Status, Verdict, extract_answer
from rewards.extract import after_thinking
from rewards.extract.letters import letters_in
from rewards.messages import short

_NUMBER = re.compile(r"(?<![\w.])(?:0(?:\.\d{1,6})?|1(?:\.0{1,6})?)(?![\w.]*\d)")
_MAX_CHARS = 8_000
# Scores a text that names the options chosen.
Compare = Callable[[str], Verdict]


def judged(judge: Judge, compare: Compare, example: Example, response: Response, ask: Ask) -> Verdict:
    """Judge a response; after a reply without a verdict the judge is asked once more, with the reminder.

    An answer that is literally the gold answer is right without a request. Raises what ``ask`` raises.

    Args:
        judge: prompt and form of the replies.
        compare: verdict of the options that a reply names, for ``reply: letters``.
        example: the question.
        response: the response; a stored extraction is the answer.
        ask: sends a prompt to the judge.
    """
    answer = response.extraction if response.extraction is not None else extract_answer(response.text)
    if not (answer or "").strip() and not response.text.strip():
        return Verdict(0.0, Status.NO_ANSWER, None, "the response is empty")
    if answer and is_gold_answer(answer, example):
        return Verdict(1.0, Status.CORRECT, answer, f"{short(answer, 60)} is the gold answer; no judge asked")
    prompt, reply = prompt_of(judge, example, response, answer), ""
    for asked in (prompt, f"{prompt}\n\n{judge.reminder}"):
        reply = ask(asked)
        verdict = _verdict(judge, compare, example, reply, answer)
        if verdict is not None:
            return verdict
    why = f"the judge gave no clear verdict, asked twice: {short(reply, 100)!r}"
    return Verdict(None, Status.NOT_JUDGED, answer, why)


def prompt_of(judge: Judge, example: Example, response: Response, answer: str | None) -> str:
    """Return the judge's prompt; of long texts, the end is sent."""
    values = {
        **example.meta,
        "question": example.question,
        "choices": list(example.choices),
        "options": "\n".join(f"{chr(65 + i)}. {text}" for i, text in enumerate(example.choices)),
        "gold": example.answer,
        "answer": (answer or "")[-_MAX_CHARS:],
        "response": after_thinking(response.text)[-_MAX_CHARS:].strip(),
    }
    return judge.prompt.render(values, example.id)


def _verdict(
    judge: Judge, compare: Compare, example: Example, reply: str, answer: str | None
) -> Verdict | None:
    """Return the verdict of a reply, None if it has none."""
    text = after_thinking(reply).strip().strip("`*").strip()
    if judge.reply == "letters" and letters_in(text):
        found = compare(text)
        return found if found.score is not None else None
    score = _word(judge, example, text) if judge.reply == "words" else None
    if judge.reply == "score":
        score = _number(text)
    if score is None:
        named, _ = read_judgement(reply)
        score = {"correct": 1.0, "wrong": 0.0}.get(named or "")
    if score is None:
        return None
    status = Status.CORRECT if score == 1 else Status.PARTIAL if score else Status.WRONG
    return Verdict(score, status, answer, f"the judge: {short(text, 100)}")


def _word(judge: Judge, example: Example, text: str) -> float | None:
    """Return the score of the only word that the reply's first or last line has, None if there is not one."""
    lines = [line for line in text.lower().split("\n") if line.strip()]
    for line in (lines[:1], lines[-1:]):
        named = {
            word
            for word in judge.words
            if line and re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", line[0])
        }
        if len(named) == 1:
            return _score_of(judge.words[named.pop()], example)
    return None


def _score_of(score: Template, example: Example) -> float:
    return float(score.text if score.is_column else score.render(example.meta, example.id))


def _number(text: str) -> float | None:
    """Return the only number from 0 to 1 in the first or last line of the reply."""
    lines = [line for line in text.split("\n") if line.strip()]
    for line in (lines[:1], lines[-1:]):
        found = set(_NUMBER.findall(line[0])) if line else set()
        if len(found) == 1:
            return float(found.pop())
    return None
