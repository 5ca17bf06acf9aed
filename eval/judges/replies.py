"""Replies of one word: reading them strictly, and asking once more for a clear one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from eval.benchmark import Ask
from rewards.extract import after_thinking
from rewards.messages import short

YES_NO: Mapping[str, bool] = {"yes": True, "no": False}
ONE_ZERO: Mapping[str, bool] = {"1": True, "0": False}
_AROUND = " \t`*_\"'.:!()[]{}<>。"
_LABEL = re.compile(r"^(?:jud(?:ge|g|e)ment|verdict|answer|score)\s*[:：]\s*", re.IGNORECASE)


def settled(reply: str, words: Mapping[str, bool]) -> bool | None:
    """Return what a reply says, None if it is unclear.

    Thinking, code fences, emphasis and a label ("Judgement: 1") are ignored. Of several lines the first or
    the last must be the word alone, and not both with different words.
    """
    text = unicodedata.normalize("NFKC", after_thinking(reply))
    lines = [line for line in map(_bare, text.splitlines()) if line]
    said = {words[line] for line in (lines[:1] + lines[-1:]) if line in words}
    return said.pop() if len(said) == 1 else None


def _bare(line: str) -> str:
    return _LABEL.sub("", line.strip(_AROUND)).strip(_AROUND).lower()


def asked_twice(prompt: str, reminder: str, words: Mapping[str, bool], ask: Ask) -> tuple[bool | None, str]:
    """Ask, and after an unclear reply once more with a reminder; return the answer and the last reply.

    Raises what ``ask`` raises.
    """
    reply = ask(prompt)
    found = settled(reply, words)
    if found is None:
        reply = ask(f"{prompt}\n\n{reminder}")
        found = settled(reply, words)
    return found, short(reply.strip(), 100)
