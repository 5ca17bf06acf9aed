"""Replies that are a verdict in one word: reading them strictly, and asking once more for a clear one."""

from __future__ import annotations

import re
import unicodedata

from eval.benchmark import Ask
from rewards.extract import after_thinking
from rewards.messages import short

_WORDS = {
    **dict.fromkeys(["1", "yes", "true", "correct", "right", "one", "是", "对", "正确", "一致"], True),
    **dict.fromkeys(["0", "no", "false", "incorrect", "wrong", "zero", "否", "错", "错误", "不一致"], False),
}
_AROUND = " \t`*_\"'.:!()[]{}<>$。"
# Not "answer", which may introduce the student's own.
_LABEL = re.compile(
    r"^(?:jud(?:ge|g|e)ment|verdict|score|result|判断|结果|结论)\s*(?::|为|是)\s*", re.IGNORECASE
)
_BOX = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_FIELD = re.compile(r'"(?:verdict|jud\w*|score|result)"\s*:\s*"?(\w+)"?', re.IGNORECASE)


def settled(reply: str) -> bool | None:
    """Return whether a reply says right (1, Yes, correct) or wrong, None if it is unclear.

    Thinking, code fences, emphasis, a box, a label ("Judgement: 1") and a JSON object around the word are
    ignored. Of several lines the first or the last must be the word alone, and not both with different words.
    """
    text = unicodedata.normalize("NFKC", after_thinking(reply))
    fields = _FIELD.findall(text)
    lines = [line for line in map(_bare, text.splitlines()) if line]
    found = {_WORDS[word.lower()] for word in fields or (lines[:1] + lines[-1:]) if word.lower() in _WORDS}
    return found.pop() if len(found) == 1 else None


def _bare(line: str) -> str:
    line = _BOX.sub(r"\1", line).strip(_AROUND)
    return _LABEL.sub("", line).strip(_AROUND)


def asked_twice(prompt: str, reminder: str, ask: Ask) -> tuple[bool | None, str]:
    """Ask, and after an unclear reply once more with a reminder; return the verdict and the last reply.

    Raises what ``ask`` raises.
    """
    reply = ask(prompt)
    found = settled(reply)
    if found is None:
        reply = ask(f"{prompt}\n\n{reminder}")
        found = settled(reply)
    return found, short(reply.strip(), 100)
