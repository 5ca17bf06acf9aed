"""Scoring of a response to a declared benchmark by an LLM, with the benchmark's prompt or an own one."""

from __future__ import annotations

from collections.abc import Callable

from data import Example
from eval.benchmark import Ask, Response
from eval.declared.schema import Judge
from eval.declared.templates import Template
from eval.scoring.judge import without_judge
from eval.scoring.judgement import (
    asked_twice,
    bare,
    no_verdict,
    read_digit,
    read_judgement,
    read_score,
    read_word,
)
from rewards import Status, Verdict
from rewards.extract import after_thinking
from rewards.extract.letters import letters_in
from rewards.messages import short

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
    answer, settled = without_judge(example, response)
    if settled is not None:
        return settled

    def read(reply: str) -> Verdict | None:
        return _verdict(judge, compare, example, reply, answer)

    prompt = prompt_of(judge, example, response, answer)
    verdict, reply = asked_twice(prompt, f"\n\n{judge.reminder}", ask, read)
    return verdict or no_verdict(answer, reply)


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
    text = bare(reply)
    if judge.reply == "letters" and (letters := letters_in(text)):
        found = compare(", ".join(sorted(letters)))
        return found if found.score is not None else None
    named, _ = read_judgement(reply)
    score = {"correct": 1.0, "wrong": 0.0}.get(named or "")
    if judge.reply == "words":
        score = _word(judge, example, text) if score is None else score
    elif judge.reply == "score":
        score = read_score(text) if score is None else score
    if score is None:
        return None
    status = Status.CORRECT if score == 1 else Status.PARTIAL if score else Status.WRONG
    return Verdict(score, status, answer, f"the judge: {short(text, 100)}")


def _word(judge: Judge, example: Example, text: str) -> float | None:
    """Return the score of the word that a reply gives; where the words are 1 and 0, other words for them."""
    if set(judge.words) == {"0", "1"}:
        digit = read_digit(text)
        return None if digit is None else _score_of(judge.words[str(digit)], example)
    words = {word.lower(): score for word, score in judge.words.items()}
    word = read_word(text, tuple(words))
    return None if word is None else _score_of(words[word], example)


def _score_of(score: Template, example: Example) -> float:
    return float(score.text if score.is_column else score.render(example.meta, example.id))
