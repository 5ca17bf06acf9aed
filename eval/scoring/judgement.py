"""Verdicts in the replies of a judge: as JSON, and as one digit. A reply that is not clear has none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress

from eval.benchmark import Ask
from eval.generate.client import EndpointError
from rewards import Status, Verdict
from rewards.extract import after_thinking
from rewards.messages import short

VERDICT = re.compile(r"""["']verdict["']\s*:\s*["'](correct|wrong|unclear)["']""", re.IGNORECASE)
_REASON = re.compile(r'"reason"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
ONE_DIGIT = "\n\nReply with a single digit, 1 or 0, and nothing else."

# Longer replies are read at their beginning and end only.
_HEAD = _TAIL = 2_000
_WORDS = {
    **dict.fromkeys(("1", "1/1", "one", "yes", "true", "correct", "right", "equal", "equivalent"), 1),
    **dict.fromkeys(("正确", "对", "是", "一致", "相同"), 1),
    **dict.fromkeys(("0", "0/1", "zero", "no", "false", "incorrect", "wrong", "not correct", "unequal"), 0),
    **dict.fromkeys(("错误", "不正确", "错", "不对", "否", "不一致", "不是"), 0),
}
_VALUES = "|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True))
_IS = r"[\"']?\s*(?:is|:|=|为|是)+\s*:?\s*[\"']?"
# A name of the verdict alone: "Judgement: 1", "the verdict is 0, because …", {"score": 1}, 判断：1.
_NAMED = re.compile(
    rf"(?<!\w)(?:judge?ment|verdict|score|grade|rating|decision|判断(?:结果)?|评分|得分|判定|结论){_IS}({_VALUES})"
    r"(?![.,]\d)(?=[\"']?\s*(?:$|[.,;:!()\[\]{}。]|because\b|since\b|因为))",
    re.IGNORECASE | re.MULTILINE,
)
# Names that may also be the student's result's: only if the reply says nothing else.
_LINE = re.compile(
    r"\W*(?:(?:final )?(?:answer|result|output|reply)|correct|equal|equivalent|right|结果|答案)"
    rf"{_IS}({_VALUES})\W*",
    re.IGNORECASE,
)
# "The answers agree, so 1."
_CONCLUDED = re.compile(
    r"\b(?:so|therefore|thus|hence)[\s,:]+(?:it is |it's |the verdict is )?([01])\W*$", re.I
)
# "1, because …", "No, they differ", "0 (other units)", "0. The units"; not "1. First", which begins a list.
_BEGUN = re.compile(
    r"^(?:(1|0|yes|no)\s*(?:[,;:(–—-]|because\b|since\b|因为)|(0)\.\s+[^\W\d])", re.IGNORECASE
)
_AROUND = " \t\"'“”‘’.,;:!。()[]{}<>「」【】"
_FENCE = re.compile(r"^\s*`{3,}[^\n`]*$", re.MULTILINE)
_BOX = re.compile(r"\\(?:boxed|text|mathbf|mathrm)\s*\{([^{}]*)\}")


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
    verdicts = {found.lower() for found in VERDICT.findall(text)}
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
    text = bare(reply)
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n…\n{text[-_TAIL:]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    found = [_WORDS[word] for line in (lines[0], lines[-1]) if (word := _word(line)) in _WORDS]
    found += [_WORDS[value.lower()] for value in _NAMED.findall(text)]
    ends = _LINE.fullmatch(text), _BEGUN.search(lines[0]), _CONCLUDED.search(lines[-1])
    found += [_WORDS[match[match.lastindex or 0].lower()] for match in ends if match]
    return found[0] if len(set(found)) == 1 else None


def unfenced(reply: str) -> str:
    """Return a reply without its thinking and the lines of a code fence."""
    return _FENCE.sub("", after_thinking(reply)).strip()


def bare(reply: str) -> str:
    """Return a reply without its thinking, code fences and emphasis, full-width characters as ASCII."""
    text = _BOX.sub(r"\1", unicodedata.normalize("NFKC", unfenced(reply)))
    return re.sub(r"[*`_#$]|\\[()\[\]]", "", text).strip()


def _word(line: str) -> str:
    """Return a line without what surrounds a verdict."""
    return line.strip(_AROUND).lower()


def asked_twice(
    prompt: str, reminder: str, ask: Ask, read: Callable[[str], int | None]
) -> tuple[int | None, str]:
    """Ask for a verdict, and once more with a reminder if the first reply has no clear one.

    Args:
        prompt: the prompt.
        reminder: added to it the second time.
        ask: asks the judge.
        read: returns the verdict of a reply, 1 or 0, None if there is no clear one.

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


def no_verdict(answer: str | None, reply: str) -> Verdict:
    """Return the verdict on a response for which the judge gave none."""
    return Verdict(None, Status.NOT_JUDGED, answer, f"{NO_VERDICT}: {short(reply, 100)!r}")


def lacks_reply(verdict: Verdict) -> bool:
    """Return whether the judge gave no usable reply, so that it can be asked again."""
    return verdict.status is Status.NOT_JUDGED and not verdict.reason.startswith(NO_VERDICT)
