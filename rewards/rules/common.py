"""Shared code of rules: what a rule reads of a completion, what it compares with, ranges of options."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le

from rewards.extract import after_thinking, extract_answer
from rewards.math.bounds import Unreadable
from rewards.registry import Answerable
from rewards.verdict import Status, Verdict


@dataclass(frozen=True)
class Checked:
    """Any other condition: ``check`` returns the value, or raises ``ValueError`` saying what it must be."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Tell pydantic to check after the type. It is imported only where options are checked."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


Share = Annotated[float, Ge(0), Le(1)]
NonNegative = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]


Gold = TypeVar("Gold")
MAX_TEXT = 20_000
_TAG_NAME = re.compile(r"[A-Za-z][\w-]{0,40}")


def tag_name(name: str) -> str:
    """Return ``name``. Raises ``ValueError`` if it cannot be the name of a tag."""
    if not _TAG_NAME.fullmatch(name):
        raise ValueError("a tag is named without brackets: think, answer, caption")
    return name


Section = Annotated[str, Checked(tag_name)]


def _between(text: str, name: str) -> str | None:
    """What the last complete ``<name>…</name>`` holds."""
    end = text.rfind(f"</{name}>")
    start = text.rfind(f"<{name}>", 0, max(end, 0))
    return text[start + len(name) + 2 : end] if end >= 0 and start >= 0 else None


def _thinking(completion: str) -> str:
    """From the first opening tag, or the start if the prompt has written it, to the last closing tag."""
    start, end = completion.find("<think>"), completion.rfind("</think>")
    if start < 0 and end < 0:
        return ""
    return completion[start + len("<think>") if start >= 0 else 0 : end if end >= 0 else None]


def section(completion: str, read: str) -> str | None:
    """Return the part of a completion that ``read`` names, or None if it is missing or blank.

    Args:
        completion: the model's text.
        read: ``answer``, the final answer as ``extract_answer`` finds it; ``text``, the ``<answer>`` tag if
            there is one and else all that follows the thinking; ``everything``, the thinking too; ``think``,
            the thinking alone; any other name, the last complete tag of that name after the thinking.
    """
    if read == "answer":
        found = extract_answer(completion)
    elif read == "everything":
        found = completion
    elif read == "think":
        found = _thinking(completion)
    elif read == "text":
        after = after_thinking(completion)
        tagged = _between(after, "answer")
        found = after if tagged is None else tagged
    else:
        found = _between(after_thinking(completion), read)
    return found if found and found.strip() else None


def unfenced(text: str) -> str:
    """What stands in the code fence, if the text is one; else the text."""
    first, newline, rest = text.strip().partition("\n")
    if newline and re.fullmatch(r"```[\w+-]{0,20}\s{0,20}", first) and rest.endswith("```"):
        return rest[: -len("```")]
    return text


def from_example(example: Answerable, name: str) -> Any:
    """Return the gold answer (``answer``) or a column of the example's ``meta``.

    Raises ``Unreadable`` if it is missing or empty.
    """
    meta = getattr(example, "meta", {})
    value = example.answer if name == "answer" else meta.get(name)
    if value is None or (isinstance(value, (str, list, tuple)) and not value):
        known = f"; its meta holds {', '.join(map(str, meta)) or 'nothing'}" if name != "answer" else ""
        raise Unreadable(f"the example has no {name!r}{known}")
    return value


def graded(score: float, extracted: str | None, reason: str) -> Verdict:
    """A verdict from a grade: 1 is correct, 0 wrong, what lies between partial; clipped to that range."""
    score = min(1.0, max(0.0, score))
    status = Status.CORRECT if score == 1 else Status.WRONG if score == 0 else Status.PARTIAL
    return Verdict(score, status, extracted, reason)


def measured(value: float, threshold: float | None, extracted: str | None, reason: str) -> Verdict:
    """The value itself as the grade, or with a threshold 1 from there on and 0 below."""
    if threshold is None:
        return graded(value, extracted, reason)
    relation = "reaches" if value >= threshold else "is below"
    return graded(float(value >= threshold), extracted, f"{reason}, {relation} {threshold:g}")


def no_answer(read: str) -> Verdict:
    """The verdict where the part that is read is missing."""
    what = "answer" if read in ("answer", "text", "everything") else f"<{read}>…</{read}>"
    return Verdict(0.0, Status.NO_ANSWER, None, f"no {what} was found in the completion")


def compared(
    completion: str,
    example: Answerable,
    read: str,
    gold: str,
    want: Callable[[Any], Gold],
    compare: Callable[[str, Gold], Verdict],
) -> Verdict:
    """Read the gold side, then the completion's, and compare them.

    Args:
        completion: the model's text.
        example: holds the gold side.
        read: which part of the completion, as in ``section``.
        gold: which part of the example, as in ``from_example``.
        want: reads the gold side; raises ``Unreadable``: the example cannot be scored.
        compare: gives the verdict; raises ``Unreadable``: the answer cannot be read.
    """
    try:
        wanted = want(from_example(example, gold))
    except Unreadable as error:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, f"the gold answer cannot be scored: {error}")
    text = section(completion, read)
    if text is None:
        return no_answer(read)
    text = text.strip("\r\n")
    try:
        if len(text) > MAX_TEXT:
            raise Unreadable(f"{len(text):,} characters, at most {MAX_TEXT:,} are read")
        return compare(text, wanted)
    except Unreadable as error:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, text[:MAX_TEXT], f"the answer cannot be read: {error}")


def texts(value: Any) -> list[str]:
    """A gold side as one or several texts, each as right. Raises ``Unreadable`` for anything else."""
    several = value if isinstance(value, (list, tuple)) else [value]
    found = [str(item).strip()[:MAX_TEXT] for item in several if isinstance(item, (str, int, float))]
    if not any(found):
        raise Unreadable(f"{str(value)[:60]!r} is no text")
    return [text for text in found if text]


# Written without spaces: each sign is a word of its own.
_SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(
    rf"[0-9]+(?:[.,][0-9]+)+|[{_SIGN}]|(?:(?![{_SIGN}])[^\W_])+(?:['’](?:(?![{_SIGN}])[^\W_])+)*"
)


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, punctuation dropped; each Chinese sign is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
