"""Rules "boxes" and "temporal_iou": intersection over union with gold regions and spans of time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from rewards.example import ExampleLike
from rewards.math.bounds import Unreadable
from rewards.registry import rule
from rewards.rules.common import (
    Positive,
    Section,
    Share,
    gold_value,
    score_against_gold,
    score_with_threshold,
)
from rewards.verdict import Verdict

# Left, top, right, bottom.
Box = tuple[Fraction, Fraction, Fraction, Fraction]
# Start, end.
Span = tuple[Fraction, Fraction]


def covered(spans: Sequence[Span]) -> Fraction:
    """Return the length of the union of the spans."""
    total, reached = Fraction(0), None
    for start, end in sorted(spans):
        if reached is None or start > reached:
            total, reached = total + end - start, end
        elif end > reached:
            total, reached = total + end - reached, end
    return total


def _ratio(both: Fraction, either: Fraction) -> Fraction:
    return both / either if either else Fraction(0)


def span_iou(a: Sequence[Span], b: Sequence[Span]) -> Fraction:
    """Return the intersection over union of two unions of spans; 0 if both are empty."""
    either = covered([*a, *b])
    return _ratio(covered(a) + covered(b) - either, either)


def _rows(boxes: Sequence[Box], left: Fraction, right: Fraction) -> list[Span]:
    return [(top, bottom) for x1, top, x2, bottom in boxes if x1 <= left and right <= x2]


def box_iou(a: Sequence[Box], b: Sequence[Box]) -> Fraction:
    """Return the intersection over union of two unions of boxes; 0 if both are empty.

    Areas are sums over the vertical strips between neighbouring x coordinates, as nothing changes within one.
    """
    edges = sorted({x for box in (*a, *b) for x in (box[0], box[2])})
    both = either = Fraction(0)
    for left, right in pairwise(edges):
        rows = _rows(a, left, right), _rows(b, left, right)
        together = covered([*rows[0], *rows[1]])
        either += together * (right - left)
        both += (covered(rows[0]) + covered(rows[1]) - together) * (right - left)
    return _ratio(both, either)


MAX_PLACES = 50
NUMBER = r"([-+]?(?:[0-9]{1,7}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}))"
GAP = r"\s{0,20}"
COMMA = r"(?:\s{0,20},\s{0,20}|\s{1,20})"
_FOUR = COMMA.join([NUMBER] * 4)
_POINT = rf"[\[(]{GAP}{NUMBER}{COMMA}{NUMBER}{GAP}[\])]"


def _named(*spellings: str) -> str:
    return rf"""["']?(?:{"|".join(spellings)})["']?{GAP}[:=]{GAP}{NUMBER}"""


_BY_NAME = COMMA.join(
    _named(*names) for names in (("x1", "x_?min"), ("y1", "y_?min"), ("x2", "x_?max"), ("y2", "y_?max"))
)
_BOX = re.compile(
    rf"[\[(]{GAP}{_FOUR}{GAP}[\])]|{_POINT}{GAP},?{GAP}{_POINT}|<b?box>{GAP}{_FOUR}{GAP}</b?box>|{_BY_NAME}",
    re.IGNORECASE,
)
_BARE = re.compile(rf"{GAP}{_FOUR}{GAP}")


def _box(numbers: list[str]) -> Box:
    x1, y1, x2, y2 = map(Fraction, numbers)
    if x2 <= x1 or y2 <= y1:
        raise Unreadable(f"the box [{', '.join(numbers)}] is not left, top, right, bottom")
    return x1, y1, x2, y2


def as_text(value: Any) -> str:
    """Return a text as it is, and lists and mappings as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def read_numbers(
    text: str, form: re.Pattern[str], bare: re.Pattern[str], names: tuple[str, str]
) -> list[list[str]]:
    """Return the numbers of each place that has a form, or of a text that is bare numbers.

    ``names`` are one such place and several, for messages. Raises ``Unreadable`` if there is none, or more
    than 50.
    """
    matches = list(form.finditer(text)) or [match for match in [bare.fullmatch(text)] if match]
    if not matches:
        raise Unreadable(f"there is no {names[0]} in {text.strip()[:60]!r}")
    if len(matches) > MAX_PLACES:
        raise Unreadable(f"{len(matches)} {names[1]}, at most {MAX_PLACES} are read")
    return [[group for group in match.groups() if group is not None] for match in matches]


def read_boxes(value: Any) -> list[Box]:
    """Return the boxes of a text, or of lists and mappings as in JSON, in their order.

    Raises ``Unreadable`` if there is none, if there are more than 50, or if one has no area.
    """
    return [_box(numbers) for numbers in read_numbers(as_text(value), _BOX, _BARE, ("box", "boxes"))]


Coordinates = Literal["absolute", "fraction", "thousandths", "resized"]
Size = tuple[Fraction, Fraction]
_LIMIT = {"fraction": 1, "thousandths": 1000}


def resized(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the width and height that Qwen's image processors resize an image to.

    Source: ``smart_resize`` of qwen-vl-utils.
    """
    sides = [max(factor, round(side / factor) * factor) for side in (width, height)]
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)]
    elif sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        sides = [math.ceil(side * grow / factor) * factor for side in (width, height)]
    return sides[0], sides[1]


@dataclass(frozen=True)
class Frame:
    """Where the sides of a row's image come from, for coordinates that are given in pixels.

    Attributes:
        width: the meta column of the image's width; without one the row's first image tells it.
        height: the meta column of the image's height.
        factor: the sides of a resized image are multiples of it.
        min_pixels: least number of pixels of a resized image.
        max_pixels: greatest number of pixels of a resized image.
    """

    width: str
    height: str
    factor: int
    min_pixels: int
    max_pixels: int

    def size(self, example: ExampleLike, form: Coordinates) -> Size:
        """Return the greatest x and y of the row's image in these coordinates. Raises ``Unreadable``."""
        if form in _LIMIT:
            return Fraction(_LIMIT[form]), Fraction(_LIMIT[form])
        sides = self._sides(example)
        if form == "resized":
            sides = resized(*sides, self.factor, self.min_pixels, self.max_pixels)
        return Fraction(sides[0]), Fraction(sides[1])

    def sizes(self, example: ExampleLike, form: Coordinates, gold_form: Coordinates) -> tuple[Size, Size]:
        """Return the greatest x and y in the model's and in the gold coordinates. Raises ``Unreadable``.

        Where both are the same, any scale does, and the image's size need not be known.
        """
        if form == gold_form:
            same = Fraction(_LIMIT.get(form, 1))
            return (same, same), (same, same)
        return self.size(example, form), self.size(example, gold_form)

    def _sides(self, example: ExampleLike) -> tuple[int, int]:
        meta, images = getattr(example, "meta", {}), getattr(example, "images", ())
        if images and self.width not in meta and self.height not in meta:
            try:
                width, height = images[0].size()
            except (OSError, ValueError) as error:
                raise Unreadable(f"the image's size cannot be read: {error}") from error
            return int(width), int(height)
        return _pixels(example, self.width), _pixels(example, self.height)


def _pixels(example: ExampleLike, name: str) -> int:
    """Return a side of the image in pixels. Raises ``Unreadable`` if the example has none."""
    value = gold_value(example, name)
    if isinstance(value, bool) or not str(value).isdecimal() or not 0 < int(value) < 10**6:
        raise Unreadable(f"{name} is {str(value)[:20]!r}, not a number of pixels")
    return int(value)


def _scaled(boxes: Sequence[Box], size: Size) -> list[Box]:
    width, height = size
    return [(x1 / width, y1 / height, x2 / width, y2 / height) for x1, y1, x2, y2 in boxes]


def _check_inside(boxes: Sequence[Box], coordinates: Coordinates) -> None:
    limit = _LIMIT.get(coordinates)
    outside = [float(c) for box in boxes for c in box if limit and not 0 <= c <= limit]
    if outside:
        raise Unreadable(f"the coordinate {outside[0]:g} lies outside of 0 to {limit}")


def read_scaled(value: Any, coordinates: Coordinates, size: Size) -> list[Box]:
    """Return the boxes of a value as shares of the image's sides. Raises ``Unreadable``."""
    found = read_boxes(value)
    _check_inside(found, coordinates)
    return _scaled(found, size)


@rule("boxes")
def boxes(
    completion: str,
    example: ExampleLike,
    read: Section = "text",
    gold: str = "answer",
    threshold: Share | None = None,
    several: bool = True,
    coordinates: Coordinates = "absolute",
    gold_coordinates: Coordinates | None = None,
    width: str = "width",
    height: str = "height",
    factor: Positive = 28,
    min_pixels: Positive = 3_136,
    max_pixels: Positive = 12_845_056,
) -> Verdict:
    """IoU of the boxes in the answer with the gold boxes; several on a side count as their union.

    Args:
        completion: the model's text.
        example: holds the gold boxes as text or lists, corners left, top, right, bottom.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold boxes.
        threshold: if given, the score is 1 from there on and 0 below.
        several: False accepts only one box; more are unreadable.
        coordinates: the model's coordinates: "absolute" pixels of the image, "fraction" 0 to 1, "thousandths"
            0 to 1000, or "resized" pixels of the image as Qwen's processors pass it to the model.
        gold_coordinates: coordinates of the gold boxes; the same as ``coordinates`` if None.
        width: the meta column of the image's width, needed if the two kinds of coordinates differ; without
            such columns the row's first image tells its size.
        height: the meta column of the image's height.
        factor: the sides of a resized image are multiples of it.
        min_pixels: least number of pixels of a resized image.
        max_pixels: greatest number of pixels of a resized image.
    """
    gold_form = gold_coordinates or coordinates
    frame = Frame(width, height, factor, min_pixels, max_pixels)

    def parse_gold(value: Any) -> tuple[list[Box], Size]:
        own, of_gold = frame.sizes(example, coordinates, gold_form)
        return read_scaled(value, gold_form, of_gold), own

    def compare(text: str, wanted: tuple[list[Box], Size]) -> Verdict:
        found = read_scaled(text, coordinates, wanted[1])
        if len(found) > 1 and not several:
            raise Unreadable(f"{len(found)} boxes, one is required")
        iou = float(box_iou(found, wanted[0]))
        return score_with_threshold(
            iou, threshold, text, f"IoU {iou:.3f} of {len(found)} with {len(wanted[0])} gold"
        )

    return score_against_gold(completion, example, read, gold, parse_gold, compare)


MAX_SPANS = 50
_CLOCK_NUMBER = r"[0-9]{1,7}(?:\.[0-9]{1,20})?"
_MINUTES = r"[0-9]{1,4}\s?(?:minutes?|mins?|m|分钟?)\s?(?:and\s)?"
_TIME = rf"((?:[0-9]{{1,2}}:)?[0-9]{{1,3}}:[0-9]{{2}}(?:\.[0-9]{{1,20}})?|(?:{_MINUTES})?{_CLOCK_NUMBER})"
_SECONDS = r"(?:\s?(?:seconds?|secs?|s|秒)(?![a-z]))?"
_END = r"""(?:["']?end(?:[ _]time)?["']?\s?[:=]\s?)?["']?"""
_TO = rf"\s{{0,3}}(?:->|[-–—~,;→]|(?:to|until|till|and)\b|至|到)\s{{0,3}}{_END}"
_QUOTE = """["']?"""
_SPAN = re.compile(rf"(?<![\d.:]){_TIME}{_SECONDS}{_QUOTE}{_TO}{_TIME}(?![\d:]|\.\d)", re.IGNORECASE)


def _seconds(time: str) -> Fraction:
    """Convert ``83.5``, ``1:23.5``, ``0:01:23.5`` or ``1 min 23.5`` to seconds."""
    total = Fraction(0)
    for part in re.findall(_CLOCK_NUMBER, time):
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
    example: ExampleLike,
    read: Section = "text",
    gold: str = "answer",
    threshold: Share | None = None,
    several: bool = True,
) -> Verdict:
    """IoU of the spans of time in the answer with the gold spans; several on a side count as their union.

    Args:
        completion: the model's text: "from 3.5 s to 10 s", "[3.5, 10]", "00:03 - 00:10",
            "{"start_time": "3.5", "end_time": "10"}".
        example: holds the gold spans as text or lists.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold spans.
        threshold: if given, the score is 1 from there on and 0 below.
        several: False accepts only one span; more are unreadable.
    """

    def compare(text: str, wanted: list[Span]) -> Verdict:
        found = read_spans(text)
        if len(found) > 1 and not several:
            raise Unreadable(f"{len(found)} spans, one is required")
        iou = float(span_iou(found, wanted))
        named = " and ".join(f"{float(start):g} to {float(end):g} s" for start, end in found[:3])
        return score_with_threshold(iou, threshold, text, f"IoU {iou:.3f} of {named}")

    return score_against_gold(completion, example, read, gold, read_spans, compare)
