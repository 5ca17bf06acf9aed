r"""Answers in a place that the completion marks: ``<answer>``, ``\boxed{…}``, JSON, ``#### 42``."""

from __future__ import annotations

import itertools
import json
import re
from typing import NamedTuple

_SHORT = 60
_MAX_BOXES = 8
_MAX_JSON = 4_000
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}")
_LOOSE_BOX = re.compile(r"\\boxed\s*([A-Za-z0-9]+|-\d+)(?![\w{])")
# Between two boxes of one answer: punctuation, "and", a name ("y_2 =").
_JOINT = re.compile(
    r"(?:[\s$,;.()\\\[\]+]|\\q?quad|\\text\s*\{[^{}]{0,30}\b(?:and|or)\s*\}"
    r"|(?:[a-z]{1,12}\s+)?\b(?:and|or)\b|[和或]|[a-zA-Z](?:_\w|_\{\w+\})?\s*=)*"
)
_OR = re.compile(r"\bor\b|或", re.IGNORECASE)
_TAGS = (
    (re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)),
    (re.compile(r"<\|begin_of_box\|>"), re.compile(r"<\|end_of_box\|>")),
)
_JSON_KEY = re.compile(r'"(?:final[_ ]?)?answer"\s*:\s*', re.IGNORECASE)
_OTHER_KEYS = re.compile(
    r'"[^"\n]{0,20}(?:altern|other|second|reject|candidate|backup|answers?_?[2-9b-z]|fallback|maybe|wrong)[^"\n]{0,20}"\s*:',
    re.IGNORECASE,
)
_JSON_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_HASHES = re.compile(r"^####\s?([^\n]+)$", re.MULTILINE)


class Found(NamedTuple):
    """A found answer, and where in the text it ends."""

    text: str
    end: int


def tagged(text: str) -> Found | None:
    """Return the content of the last ``<answer>`` tag or answer box; an unclosed tag runs to the end."""
    last: Found | None = None
    for opening, closing in _TAGS if "<" in text else ():
        start = None
        for match in opening.finditer(text):
            start = match.end()
        if start is None:
            continue
        end = closing.search(text, start)
        found = Found(text[start : end.start()] if end else text[start:], end.end() if end else len(text))
        last = found if last is None or found.end >= last.end else last
    return last


def _braced(text: str, start: int) -> int | None:
    """Return the index of the brace that closes the one before ``start``, or None."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] in "{}":
            depth += 1 if text[i] == "{" else -1
            if depth == 0:
                return i
        i += 1
    return None


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Return start, end and content of each outermost complete box, left to right."""
    found: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        if found and match.start() < found[-1][1]:
            continue
        end = _braced(text, match.end())
        if end is None:
            break
        found.append((match.start(), end + 1, text[match.end() : end]))
    return found


def _joined(gap: str) -> bool:
    return len(gap) <= _SHORT and _JOINT.fullmatch(gap) is not None


def boxed(text: str) -> Found | None:
    """Return the last box; boxes that only a separator or "and" divides are one answer."""
    boxes = _boxes(text) if "\\" in text else []
    if not boxes:
        loose = list(_LOOSE_BOX.finditer(text)) if "\\boxed" in text else []
        return Found(loose[-1].group(1), loose[-1].end()) if loose else None
    first = len(boxes) - 1
    while first > 0 and _joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    contents = dict.fromkeys(_innermost(content) for _, _, content in boxes[first:])
    gaps = " ".join(text[a[1] : b[0]] for a, b in itertools.pairwise(boxes[first:]))
    return Found((" or " if _OR.search(gaps) else ", ").join(contents), boxes[-1][1])


def _innermost(content: str) -> str:
    r"""Unwrap boxes that are the whole content of another: ``\boxed{\boxed{4}}`` is 4."""
    for _ in range(_MAX_BOXES):
        inner = _boxes(content)
        if not inner or content[: inner[-1][0]].strip(" $") or content[inner[-1][1] :].strip(" $"):
            break
        content = inner[-1][2]
    return content


def hashes(text: str) -> Found | None:
    """Return the text after the last ``####`` at the start of a line, the form of GSM8K."""
    matches = list(_HASHES.finditer(text)) if "####" in text else []
    return Found(matches[-1].group(1), matches[-1].end()) if matches else None


def in_json(text: str) -> Found | None:
    """Return the value of the last key "answer" of a JSON object that ends the text, or None.

    LaTeX in a JSON string often lacks its doubled backslashes; it is then read up to the closing quote. An
    object that gives another answer beside it is returned whole.
    """
    tail = text[-_MAX_JSON:]
    keys = list(_JSON_KEY.finditer(tail)) if '"' in tail and tail.rstrip("` \n").endswith("}") else []
    if not keys:
        return None
    if _OTHER_KEYS.search(tail):
        return Found(tail[tail.rfind("{") :], len(text))
    start = keys[-1].end()
    try:
        value, _ = json.JSONDecoder().raw_decode(tail, start)
    except (ValueError, RecursionError):
        match = _JSON_TEXT.match(tail, start)
        value = match.group(1) if match else None
    return Found(_as_text(value), len(text)) if value is not None else None


def _as_text(value: object) -> str:
    """Return a JSON value as an answer's text: a list is one answer with several items."""
    if isinstance(value, list):
        return ", ".join(_as_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
