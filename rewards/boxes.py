"""The rule "boxes": how well the boxes that were written cover the gold boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

from rewards.bounds import Unreadable
from rewards.box_text import read_boxes
from rewards.limits import Positive, Share
from rewards.overlap import Box, box_iou
from rewards.registry import Answerable, rule
from rewards.sides import Section, compared, from_example, measured
from rewards.verdict import Verdict

Coordinates = Literal["absolute", "fraction", "thousandths", "resized"]
Size = tuple[Fraction, Fraction]
_LIMIT = {"fraction": 1, "thousandths": 1000}


def resized(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The width and height that Qwen's image processors give a picture: ``smart_resize`` of qwen-vl-utils."""
    sides = [max(factor, round(side / factor) * factor) for side in (width, height)]
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)]
    elif sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        sides = [math.ceil(side * grow / factor) * factor for side in (width, height)]
    return sides[0], sides[1]


def _pixels(example: Answerable, name: str) -> int:
    """A side of the image in pixels. Raises ``Unreadable`` if the example does not hold it."""
    value = from_example(example, name)
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


def _read(value: Any, coordinates: Coordinates, size: Size) -> list[Box]:
    found = read_boxes(value)
    _check_inside(found, coordinates)
    return _scaled(found, size)


@rule("boxes")
def boxes(
    completion: str,
    example: Answerable,
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
        read: the part of the completion to read.
        gold: "answer", or the example's meta column that holds the gold boxes.
        threshold: a number makes it 1 from there on and 0 below.
        several: False wants one box and takes more for unreadable.
        coordinates: what the model writes: "absolute" pixels of the image, "fraction" 0 to 1, "thousandths"
            0 to 1000, or "resized" pixels of the picture as Qwen's processors hand it to the model.
        gold_coordinates: the same of the gold boxes; as ``coordinates`` if not given.
        width: the meta column that holds the image's width; read only where the two forms differ.
        height: the same for its height.
        factor: sides of a resized picture are multiples of it.
        min_pixels: of a resized picture.
        max_pixels: of a resized picture.
    """
    theirs = gold_coordinates or coordinates

    def size(form: Coordinates) -> Size:
        # IoU does not change when an axis is stretched, so alike coordinates need no image size.
        if form in _LIMIT or theirs == coordinates:
            return Fraction(_LIMIT.get(form, 1)), Fraction(_LIMIT.get(form, 1))
        sides = _pixels(example, width), _pixels(example, height)
        if form == "resized":
            sides = resized(*sides, factor, min_pixels, max_pixels)
        return Fraction(sides[0]), Fraction(sides[1])

    def want(value: Any) -> tuple[list[Box], Size]:
        return _read(value, theirs, size(theirs)), size(coordinates)

    def compare(text: str, wanted: tuple[list[Box], Size]) -> Verdict:
        found = _read(text, coordinates, wanted[1])
        if len(found) > 1 and not several:
            raise Unreadable(f"{len(found)} boxes, one is asked for")
        iou = float(box_iou(found, wanted[0]))
        return measured(iou, threshold, text, f"IoU {iou:.3f} of {len(found)} with {len(wanted[0])} gold")

    return compared(completion, example, read, gold, want, compare)
