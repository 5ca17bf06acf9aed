"""Verdicts in the replies of a judge: JSON, a word, a digit, a score. A reply that is not clear has none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from eval.benchmark import Ask
from eval.generate.client import EndpointError
from rewards import Status, Verdict
from rewards.extract import after_thinking
from rewards.messages import short

# Not the form that the prompt shows: "correct" or "wrong".
VERDICT = re.compile(
    r"""["']verdict["']\s*:\s*["'](correct|right|incorrect|wrong|unclear)\.?["'](?=\s*(?:[,}\n]|$))""",
    re.IGNORECASE,
)
_REASON = re.compile(r'"reason"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
ONE_DIGIT = "\n\nReply with a single digit, 1 or 0, and nothing else."

_SAME = {"right": "correct", "incorrect": "wrong"}
# Longer replies are read at their beginning and end only.
_HEAD = _TAIL = 2_000
_WORDS = {
    **dict.fromkeys(("1", "1/1", "1.0", "one", "yes", "true", "correct", "right", "equal"), 1),
    **dict.fromkeys(("equivalent", "consistent"), 1),
    **dict.fromkeys(("正确", "对", "是", "一致", "相同"), 1),
    **dict.fromkeys(("0", "0/1", "0.0", "zero", "no", "false", "incorrect", "wrong", "unequal"), 0),
    **dict.fromkeys(("not correct", "not equal", "not equivalent", "not consistent", "inconsistent"), 0),
    **dict.fromkeys(("错误", "不正确", "错", "不对", "否", "不一致", "不是"), 0),
}
_IS = r"[\"']?\s*(?:is|:|=|为|是|[–—→-])+\s*:?\s*[\"']?"
# What ends a named verdict, so that "score: 1 of 3" is none.
_ENDED = r"(?![.,]\d)(?=[\"']?\s*(?:$|[.,;:!()\[\]{}。]|because\b|since\b|因为))"
# A name of the verdict alone: "Judgement: 1", "the verdict is 0, because …", {"score": 1}, 判断：1.
_NAMES = (
    r"(?<!\w)(?:judge?ment|verdict|score|grade|rating|correctness|decision|判断(?:结果)?|评分|得分|判定|结论)"
)
# Names that may also be the student's result's: only if the reply says nothing else.
_SAID = r"(?:(?:final )?(?:answer|result|output|reply)|correct|equal|equivalent|right|结果|答案)"
# "The prediction is incorrect."; not the reference answer, which always is correct, nor "the answer is no".
_JUDGED = r"(?<!reference )(?<!gold )(?<!truth )\b(?:prediction|answer|response)s? (?:is|are) "
# "The answers agree, so 1."
_CONCLUDED = r"\b(?:so|therefore|thus|hence)[\s,:]+(?:it is |it's |the verdict is )?"
# "1, because …", "No, they differ", "0 (other units)", "0. The units"; not "1. First", which begins a list.
_GROUNDS = r"\s*(?:[,;:(]|[–—-](?!\s*\.?\d)|because\b|since\b|因为)"
# A number from 0 to 1.
_SCORE = r"(?:0?\.\d{1,6}|1\.0{1,6}|[01])"
# What follows a score of 1 at most.
_WHOLE = r"(?:\s*/\s*1(?:\.0)?)?"
# What a question's answer may be too.
_ANSWERS = {"one", "zero", "yes", "no", "true", "false", "right"}
_AROUND = " \t\"'“”‘’.,;:!。()[]{}<>「」【】"
_FENCE = re.compile(r"^\s*`{3,}[^\n`]*$", re.MULTILINE)
_TAGS = re.compile(
    r"</?(?:answer|verdict|judge?ment|score|output)>|<\|(?:begin|end)_of_box\|>", re.IGNORECASE
)
_BOX = re.compile(r"\\(?:boxed|text|mathbf|mathrm)\s*\{([^{}]*)\}")

Found = TypeVar("Found")

NO_VERDICT = "the judge gave no clear verdict, asked twice"


class JudgeError(EndpointError):
    """The judge gave no usable reply; the response is not judged."""


class UnusableReply(JudgeError):
    """The judge replied with no text, a part of one, or something else than a text."""


def read_judgement(reply: str) -> tuple[str | None, str]:
    """Return verdict and reason of a reply in JSON; the verdict is None if there is none or several.

    Code fences, text around the object and an invalid reason (LaTeX is often escaped wrongly) are tolerated.
    """
    text = after_thinking(reply)
    verdicts = {_SAME.get(found.lower(), found.lower()) for found in VERDICT.findall(text)}
    match = _REASON.search(text)
    reason = short(match.group(1).replace('\\"', '"').replace("\\\\", "\\"), 200) if match else ""
    return (verdicts.pop(), reason) if len(verdicts) == 1 else (None, reason)


def read_digit(reply: str) -> int | None:
    """Return the verdict of a reply that was to be 1 or 0; None if it states none, or both.

    Thinking, code fences, emphasis and full-width characters are no difference. A verdict is the first or
    last line ("1", "Yes", 正确), one with its name ("Judgement: 1", ``{"score": 0}``), the beginning before
    its reason ("1, because …") or the end that is concluded ("…, so 0."). A digit elsewhere may be the
    student's answer.
    """
    found = {_WORDS[word] for word in _words_in(reply, tuple(_WORDS))}
    return found.pop() if len(found) == 1 else None


def read_word(reply: str, words: tuple[str, ...]) -> str | None:
    """Return the word, in lower case, that a reply gives in the forms of ``read_digit``.

    None if it gives none of the words, or several. "The answer is incorrect." gives one too, "the correct
    answer is 3" does not.
    """
    found = _words_in(reply, words)
    return found.pop() if len(found) == 1 else None


def read_score(reply: str) -> float | None:
    """Return the score from 0 to 1 that a reply gives in the forms of ``read_digit`` or ends a row with.

    None if there is none, or several.
    """
    lines = _lines(reply)
    if not lines:
        return None
    numbers: list[str] = []
    for line in (lines[0], lines[-1]):
        alone = re.fullmatch(rf"(?:[^\n]*\|)?\W*?({_SCORE}){_WHOLE}\W*", line)
        numbers += [alone[1]] if alone else []
    begun = re.match(
        rf"({_SCORE}){_WHOLE}{_GROUNDS}|(0?\.\d{{1,6}}|1\.0{{1,6}})\.?\s+(?!or\b|to\b|and\b)[^\W\d]", lines[0]
    )
    numbers += [begun[1] or begun[2]] if begun else []
    text = "\n".join(lines)
    numbers += re.findall(rf"{_NAMES}(?: score)?{_IS}({_SCORE}){_WHOLE}{_ENDED}", text, re.I | re.M)
    numbers += re.findall(rf"{_CONCLUDED}({_SCORE}){_WHOLE}\W*$", lines[-1], re.I)
    found = set(map(float, numbers))
    return found.pop() if len(found) == 1 else None


def _words_in(reply: str, words: tuple[str, ...]) -> set[str]:
    """Return all the words that a reply gives as its verdict."""
    lines = _lines(reply)
    if not lines:
        return set()
    forms, text = _forms(words), "\n".join(lines)
    known = {word.lower() for word in words}
    found = [word for line in (lines[0], lines[-1]) if (word := _word(line)) in known]
    found += forms.named.findall(text)
    ends = (
        forms.line.fullmatch(text), forms.begun.search(lines[0]), forms.concluded.search(lines[-1]),
        forms.judged.search(lines[0]), forms.judged.search(lines[-1]),
    )  # fmt: skip
    found += [match[match.lastindex or 0] for match in ends if match]
    return {word.lower() for word in found}


@dataclass(frozen=True)
class _Forms:
    """Expressions for the forms of a verdict, which is their last group."""

    named: re.Pattern[str]
    line: re.Pattern[str]
    begun: re.Pattern[str]
    concluded: re.Pattern[str]
    judged: re.Pattern[str]


@lru_cache(maxsize=64)
def _forms(words: tuple[str, ...]) -> _Forms:
    """Return the expressions for some words. Digits begin a reply and conclude it in fewer forms."""
    value = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    long = "|".join(re.escape(word) for word in words if len(word) > 1 and word.isalpha()) or "(?!)"
    short_ones = "|".join(re.escape(word) for word in words if len(word) == 1 and word.isascii()) or "(?!)"
    judged = "|".join(word for word in long.split("|") if word not in _ANSWERS) or "(?!)"
    flags = re.IGNORECASE | re.MULTILINE
    return _Forms(
        re.compile(rf"{_NAMES}{_IS}({value}){_ENDED}", flags),
        re.compile(rf"\W*{_SAID}{_IS}({value})\W*", flags),
        re.compile(rf"^(?:({short_ones}|{long}){_GROUNDS}|(0|{long})\.\s+[^\W\d])", flags),
        re.compile(rf"{_CONCLUDED}({value})\W*$", flags),
        re.compile(rf"{_JUDGED}({judged})\W*$", flags),
    )


def _lines(reply: str) -> list[str]:
    """Return the lines of a reply that say something; of a long one, of its beginning and end."""
    text = bare(reply)
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n…\n{text[-_TAIL:]}"
    return [line.strip() for line in text.splitlines() if line.strip()]


def unfenced(reply: str) -> str:
    """Return a reply without its thinking and the lines of a code fence."""
    return _FENCE.sub("", after_thinking(reply)).strip()


def bare(reply: str) -> str:
    """Return a reply without its thinking, fences, tags and emphasis, full-width characters as ASCII."""
    text = _BOX.sub(r"\1", _TAGS.sub("", unicodedata.normalize("NFKC", unfenced(reply))))
    return re.sub(r"[*`_#$]|\\[()\[\]]", "", text).strip()


def _word(line: str) -> str:
    """Return a line without what surrounds a verdict."""
    return line.strip(_AROUND).lower()


def asked_twice(
    prompt: str, reminder: str, ask: Ask, read: Callable[[str], Found | None]
) -> tuple[Found | None, str]:
    """Ask for a verdict, and once more with a reminder if the first reply has no clear one.

    Args:
        prompt: the prompt.
        reminder: added to it the second time.
        ask: asks the judge.
        read: returns the verdict of a reply, None if there is no clear one.

    Returns:
        The verdict, None if both replies have none, and the last reply.

    Raises:
        UnusableReply: the second reply is not a complete text.
        JudgeError: there is no reply.
    """
    with suppress(UnusableReply):
        reply = ask(prompt)
        if (verdict := read(reply)) is not None:
            return verdict, reply
    reply = ask(prompt + reminder)
    return read(reply), reply


def judged_by_digit(
    prompt: str, reminder: str, ask: Ask, answer: str | None, reason: Callable[[bool], str]
) -> Verdict:
    """Return the verdict of a judge that replies 1 or 0, asked twice if its first reply is not clear.

    Args:
        prompt: the prompt.
        reminder: added to it the second time.
        ask: asks the judge.
        answer: the answer that is judged, for the verdict.
        reason: of the verdict, from whether the answer is right.

    Raises:
        JudgeError: as ``asked_twice``.
    """
    found, reply = asked_twice(prompt, reminder, ask, read_digit)
    if found is None:
        return no_verdict(answer, reply)
    right = found == 1
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason(right))


def no_verdict(answer: str | None, reply: str) -> Verdict:
    """Return the verdict on a response for which the judge gave none."""
    return Verdict(None, Status.NOT_JUDGED, answer, f"{NO_VERDICT}: {short(reply, 100)!r}")


def lacks_reply(verdict: Verdict) -> bool:
    """Return whether the judge gave no usable reply, so that it can be asked again."""
    return verdict.status is Status.NOT_JUDGED and not verdict.reason.startswith(NO_VERDICT)
