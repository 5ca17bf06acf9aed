"""Rule "point_in_box": a point, such as a click on a screenshot, inside a gold region."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rewards.example import ExampleLike
from rewards.math.bounds import Unreadable
from rewards.registry import rule
from rewards.rules.common import Positive, Section, partial_credit, score_against_gold
from rewards.rules.grounding import (
    COMMA,
    GAP,
    NUMBER,
    Box,
    Coordinates,
    Frame,
    Size,
    as_text,
    read_boxes,
    read_numbers,
    read_scaled,
)
from rewards.verdict import Verdict

# x, y.
Point = tuple[Fraction, Fraction]

_TWO = rf"{NUMBER}{COMMA}{NUMBER}"
_BY_NAME = rf"""["']?x["']?{GAP}[:=]{GAP}{NUMBER}{COMMA}["']?y["']?{GAP}[:=]{GAP}{NUMBER}"""
_POINT = re.compile(rf"[\[(]{GAP}{_TWO}{GAP}[\])]|<point>{GAP}{_TWO}{GAP}</point>|{_BY_NAME}", re.IGNORECASE)
_BARE = re.compile(rf"{GAP}{_TWO}{GAP}")


def read_points(value: Any) -> list[Point]:
    """Return the points of a text in their order; boxes count by their centres where there is no point.

    Raises ``Unreadable`` if there is neither, or if there are more than 50.
    """
    text = as_text(value)
    try:
        # First, as two corners in brackets are a box and not two points.
        return [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in read_boxes(text)]
    except Unreadable:
        pass
    return [(Fraction(x), Fraction(y)) for x, y in read_numbers(text, _POINT, _BARE, ("point", "points"))]


def _is_inside(point: Point, boxes: Sequence[Box]) -> bool:
    x, y = point
    return any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in boxes)


@rule("point_in_box")
def point_in_box(
    completion: str,
    example: ExampleLike,
    read: Section = "text",
    gold: str = "answer",
    coordinates: Coordinates = "absolute",
    gold_coordinates: Coordinates | None = None,
    width: str = "width",
    height: str = "height",
    factor: Positive = 28,
    min_pixels: Positive = 3_136,
    max_pixels: Positive = 12_845_056,
) -> Verdict:
    """1 if the point of the answer lies inside a gold box or on its edge, else 0; a box counts by its centre.

    The measure of ScreenSpot (arXiv 2401.10935), and the reward of GUI-R1 (arXiv 2504.10458) for clicks.

    Args:
        completion: the model's text: "[12, 30]", "(12, 30)", "<point>12 30</point>", "x=12, y=30", a box.
            An answer with several is unreadable.
        example: holds the gold boxes as text or lists, corners left, top, right, bottom.
        read: the section of the completion to read.
        gold: "answer", or the example's meta column that holds the gold boxes.
        coordinates: the model's coordinates, as in the rule "boxes".
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
        boxes, (across, down) = wanted
        found = read_points(text)
        if len(found) > 1:
            raise Unreadable(f"{len(found)} points, one is required")
        x, y = found[0]
        hit = _is_inside((x / across, y / down), boxes)
        told = (
            f"the point ({float(x):g}, {float(y):g}) is {'inside' if hit else 'outside'} of the gold region"
        )
        return partial_credit(float(hit), text, told)

    return score_against_gold(completion, example, read, gold, parse_gold, compare)
