"""The rule "temporal_iou": how well the span of time that was named covers the gold span of a video."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Any

from rewards.bounds import Unreadable
from rewards.limits import Share
from rewards.overlap import Span, span_iou
from rewards.registry import Answerable, rule
from rewards.sides import Section, compared, measured
from rewards.verdict import Verdict

MAX_SPANS = 50
_NUMBER = r"[0-9]{1,7}(?:\.[0-9]{1,20})?"
_MINUTES = r"[0-9]{1,4}\s?(?:minutes?|mins?|m|分钟?)\s?(?:and\s)?"
_TIME = rf"((?:[0-9]{{1,2}}:)?[0-9]{{1,3}}:[0-9]{{2}}(?:\.[0-9]{{1,20}})?|(?:{_MINUTES})?{_NUMBER})"
_SECONDS = r"(?:\s?(?:seconds?|secs?|s|秒)(?![a-z]))?"
_END = r"""(?:["']?end(?:[ _]time)?["']?\s?[:=]\s?)?"""
_TO = rf"\s{{0,3}}(?:->|[-–—~,;→]|(?:to|until|till|and)\b|至|到)\s{{0,3}}{_END}"
_SPAN = re.compile(rf"(?<![\d.:]){_TIME}{_SECONDS}{_TO}{_TIME}(?![\d:]|\.\d)", re.IGNORECASE)


def _seconds(time: str) -> Fraction:
    """``83.5``, ``1:23.5``, ``0:01:23.5`` or ``1 min 23.5`` in seconds."""
    total = Fraction(0)
    for part in re.findall(_NUMBER, time):
        total = total * 60 + Fraction(part)
    return total


def read_spans(value: Any) -> list[Span]:
    """Return the spans of a text or of nested lists, in seconds.

    Raises ``Unreadable`` if there is none, if there are more than 50, or if one ends before it starts.
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    found = [(match[1], match[2]) for match in _SPAN.finditer(text)]
    if not found:
        raise Unreadable(f"there is no span of time in {text.strip()[:60]!r}")
    if len(found) > MAX_SPANS:
        raise Unreadable(f"{len(found)} spans, at most {MAX_SPANS} are read")
    spans = [(_seconds(start), _seconds(end)) for start, end in found]
    backwards = next((pair for pair, span in zip(found, spans, strict=True) if span[0] >= span[1]), None)
    if backwards:
        raise Unreadable(f"the span from {backwards[0]} to {backwards[1]} does not end after its start")
    return spans


@rule("temporal_iou")
def temporal_iou(
    completion: str,
    example: Answerable,
    read: Section = "text",
    gold: str = "answer",
    threshold: Share | None = None,
    several: bool = True,
) -> Verdict:
    """IoU of the spans of time in the answer with the gold spans; several on a side count as their union.

    Args:
        completion: the model's text: "from 3.5 s to 10 s", "[3.5, 10]", "00:03 - 00:10".
        example: holds the gold spans as text or lists.
        read: the part of the completion to read.
        gold: "answer", or the example's meta column that holds the gold spans.
        threshold: a number makes it 1 from there on and 0 below.
        several: False wants one span and takes more for unreadable.
    """

    def compare(text: str, wanted: list[Span]) -> Verdict:
        found = read_spans(text)
        if len(found) > 1 and not several:
            raise Unreadable(f"{len(found)} spans, one is asked for")
        iou = float(span_iou(found, wanted))
        named = " and ".join(f"{float(start):g} to {float(end):g} s" for start, end in found[:3])
        return measured(iou, threshold, text, f"IoU {iou:.3f} of {named}")

    return compared(completion, example, read, gold, read_spans, compare)
