"""Shared code of rules: sections of completions, gold values, verdicts from scores, types of options."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le

from rewards.example import ExampleLike
from rewards.extract import after_thinking, extract_answer
from rewards.math.bounds import Unreadable
from rewards.verdict import Status, Verdict


@dataclass(frozen=True)
class Checked:
    """Annotation for an option: ``check`` returns the value, or raises ``ValueError`` with the constraint."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Return the schema that runs ``check`` after the type's own validation."""
        # Imported only when options are checked.
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


Share = Annotated[float, Ge(0), Le(1)]
NonNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]

Gold = TypeVar("Gold")
MAX_TEXT = 20_000
_TAG_NAME = re.compile(r"[A-Za-z][\w-]{0,40}")


def tag_name(name: str) -> str:
    """Return ``name``. Raises ``ValueError`` if it is not a valid tag name."""
    if not _TAG_NAME.fullmatch(name):
        raise ValueError("a tag is named without brackets: think, answer, caption")
    return name


Section = Annotated[str, Checked(tag_name)]


def _between(text: str, name: str) -> str | None:
    """Return the content of the last complete ``<name>…</name>``."""
    end = text.rfind(f"</{name}>")
    start = text.rfind(f"<{name}>", 0, max(end, 0))
    return text[start + len(name) + 2 : end] if end >= 0 and start >= 0 else None


def _thinking(completion: str) -> str:
    """Return the text from the first opening tag (or the start) to the last closing tag (or the end)."""
    start, end = completion.find("<think>"), completion.rfind("</think>")
    if start < 0 and end < 0:
        return ""
    return completion[start + len("<think>") if start >= 0 else 0 : end if end >= 0 else None]


def section(completion: str, read: str) -> str | None:
    """Return the section of a completion that ``read`` names, or None if it is missing or blank.

    Args:
        completion: the model's text.
        read: ``answer``, the answer that ``extract_answer`` returns; ``text``, the ``<answer>`` tag if there
            is one, else all text after the thinking; ``everything``, including the thinking; ``think``, only
            the thinking; any other name, the last complete tag of that name after the thinking.
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


def strip_code_fence(text: str) -> str:
    """Return the content of the code fence if the text is one, else the text."""
    first, newline, rest = text.strip().partition("\n")
    if newline and re.fullmatch(r"```[\w+-]{0,20}\s{0,20}", first) and rest.endswith("```"):
        return rest[: -len("```")]
    return text


def gold_value(example: ExampleLike, name: str) -> Any:
    """Return the gold answer (``answer``) or a column of the example's ``meta``.

    Raises ``Unreadable`` if it is missing or empty.
    """
    meta = getattr(example, "meta", {})
    value = example.answer if name == "answer" else meta.get(name)
    if value is None or (isinstance(value, (str, list, tuple)) and not value):
        known = f"; its meta holds {', '.join(map(str, meta)) or 'nothing'}" if name != "answer" else ""
        raise Unreadable(f"the example has no {name!r}{known}")
    return value


def partial_credit(score: float, extracted: str | None, reason: str) -> Verdict:
    """Return a verdict with the score clipped to [0, 1]: 1 is correct, 0 wrong, any other partial."""
    score = min(1.0, max(0.0, score))
    status = Status.CORRECT if score == 1 else Status.WRONG if score == 0 else Status.PARTIAL
    return Verdict(score, status, extracted, reason)


def score_with_threshold(
    value: float, threshold: float | None, extracted: str | None, reason: str
) -> Verdict:
    """Return a verdict with ``value`` as its score, or with a threshold: 1 from there on, 0 below."""
    if threshold is None:
        return partial_credit(value, extracted, reason)
    relation = "reaches" if value >= threshold else "is below"
    return partial_credit(float(value >= threshold), extracted, f"{reason}, {relation} {threshold:g}")


def no_answer(read: str) -> Verdict:
    """Return the verdict on a completion without the section that ``read`` names."""
    what = "answer" if read in ("answer", "text", "everything") else f"<{read}>…</{read}>"
    return Verdict(0.0, Status.NO_ANSWER, None, f"no {what} was found in the completion")


def score_against_gold(
    completion: str,
    example: ExampleLike,
    read: str,
    gold: str,
    parse_gold: Callable[[Any], Gold],
    compare: Callable[[str, Gold], Verdict],
) -> Verdict:
    """Parse the gold value, read the completion's section, and return the verdict of comparing them.

    Args:
        completion: the model's text.
        example: holds the gold value.
        read: the section of the completion, as in ``section``.
        gold: the key of the gold value, as in ``gold_value``.
        parse_gold: parses the gold value; its ``Unreadable`` becomes the status ``unparsable_gold``.
        compare: returns the verdict; its ``Unreadable`` becomes the status ``unparsable_answer``.
    """
    try:
        wanted = parse_gold(gold_value(example, gold))
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


def as_texts(value: Any) -> list[str]:
    """Return a gold value as a list of accepted texts. Raises ``Unreadable`` if it has none."""
    several = value if isinstance(value, (list, tuple)) else [value]
    found = [str(item).strip()[:MAX_TEXT] for item in several if isinstance(item, (str, int, float))]
    if not any(found):
        raise Unreadable(f"{str(value)[:60]!r} is not a text")
    return [text for text in found if text]


# Scripts written without spaces: each character is a word.
_CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(
    rf"[0-9]+(?:[.,][0-9]+)+|[{_CHARACTER}]|(?:(?![{_CHARACTER}])[^\W_])+(?:['’](?:(?![{_CHARACTER}])[^\W_])+)*"
)


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, without punctuation; each Chinese character is a word."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
