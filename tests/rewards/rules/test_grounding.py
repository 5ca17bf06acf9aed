"""The rules "boxes" and "temporal_iou"."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from rewards import Status, get_rule
from rewards.example import RewardExample as Example
from rewards.rules.grounding import Box, box_iou, resized, span_iou

FORMS = [
    "[0, 0, 10, 5]",
    "(0, 0, 10, 5)",
    "[[0,0,10,5]]",
    "The region is [0.0, 0.0, 10.0, 5.0].",
    "(0,0),(10,5)",
    "<box>(0,0),(10,5)</box>",
    "<|box_start|>(0,0),(10,5)<|box_end|>",
    "<box>[[0, 0, 10, 5]]</box>",
    "<bbox>0 0 10 5</bbox>",
    '```json\n[{"bbox_2d": [0, 0, 10, 5], "label": "cat 1"}]\n```',
    '{"x1": 0, "y1": 0, "x2": 10, "y2": 5}',
    "xmin=0, ymin=0, xmax=10, ymax=5",
    "0, 0, 10, 5",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_box_is_read_in_every_form(text: str) -> None:
    assert get_rule("boxes")(f"<answer>{text}</answer>", Example("[0, 0, 10, 5]")).score == 1.0
    assert get_rule("boxes")(f"<answer>{text}</answer>", Example("[0, 0, 10, 10]")).score == 0.5


def test_the_iou_of_two_boxes_is_the_score() -> None:
    # Both 100, common 5 · 5: 25 / 175.
    verdict = get_rule("boxes")("[5, 5, 15, 15]", Example("[0, 0, 10, 10]"))
    assert verdict.score == pytest.approx(1 / 7, abs=1e-12)
    assert (verdict.status, verdict.reason) == (Status.PARTIAL, "IoU 0.143 of 1 with 1 gold")


def test_several_boxes_count_as_their_union() -> None:
    # [0,6] and [4,10] by 10 overlap and cover the gold box exactly.
    assert get_rule("boxes")("[0,0,6,10] [4,0,10,10]", Example("[0,0,10,10]")).score == 1.0
    # Twice the same box is that box once.
    assert get_rule("boxes")("[0,0,5,10] [0,0,5,10]", Example("[0,0,10,10]")).score == 0.5


def grid_iou(a: list[Box], b: list[Box]) -> Fraction:
    def cells(boxes: list[Box]) -> set[tuple[int, int]]:
        return {
            (x, y)
            for x1, y1, x2, y2 in boxes
            for x in range(int(x1), int(x2))
            for y in range(int(y1), int(y2))
        }

    left, right = cells(a), cells(b)
    return Fraction(len(left & right), len(left | right))


@pytest.mark.parametrize("seed", range(20))
def test_the_iou_of_unions_is_the_one_that_counting_unit_squares_gives(seed: int) -> None:
    draw = random.Random(seed)

    def box() -> Box:
        x, y = draw.randrange(12), draw.randrange(12)
        return Fraction(x), Fraction(y), Fraction(x + draw.randint(1, 8)), Fraction(y + draw.randint(1, 8))

    sides = [box() for _ in range(draw.randint(1, 5))], [box() for _ in range(draw.randint(1, 5))]
    assert box_iou(*sides) == grid_iou(*sides)
    assert box_iou(*sides) == box_iou(*reversed(sides))


def test_one_box_may_be_required() -> None:
    rule = get_rule("boxes", {"several": False})
    assert rule("[0,0,10,10]", Example("[0,0,10,10]")).score == 1.0
    assert "2 boxes, one is required" in rule("[0,0,10,10][0,0,1,1]", Example("[0,0,10,10]")).reason


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("fraction", "[0.1, 0.1, 0.5, 0.5]"),
        ("thousandths", "[100, 100, 500, 500]"),
        ("absolute", "[20,10,100,50]"),
    ],
)
def test_coordinates_are_converted_to_one_scale(form: str, text: str) -> None:
    row = Example("", meta={"gold": [[20, 10, 100, 50]], "width": 200, "height": 100})
    options = {"coordinates": form, "gold_coordinates": "absolute", "gold": "gold"}
    assert get_rule("boxes", options)(text, row).score == 1.0


def test_coordinates_of_the_resized_image_are_scaled_back() -> None:
    # 200 × 100 becomes 196 × 112, so half of each side is (98, 56) there and (100, 50) here.
    row = Example("[0, 0, 100, 50]", meta={"width": 200, "height": 100})
    rule = get_rule("boxes", {"coordinates": "resized", "gold_coordinates": "absolute"})
    assert rule("[0, 0, 98, 56]", row).score == 1.0


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 100), (196, 112)),  # rounded to multiples of 28
        ((1000, 1000), (616, 616)),  # √401408 = 633.6, down to 22 · 28
        ((100, 100), (448, 448)),  # √200704 = 448 = 16 · 28
    ],
)
def test_the_size_of_the_resized_image(size: tuple[int, int], expected: tuple[int, int]) -> None:
    limits = (3136, 12_845_056) if size == (200, 100) else (200_704, 401_408)
    assert resized(*size, 28, *limits) == expected


def test_without_the_image_size_the_example_cannot_be_scored() -> None:
    rule = get_rule("boxes", {"coordinates": "thousandths", "gold_coordinates": "absolute"})
    verdict = rule("[0,0,500,500]", Example("[0,0,5,5]", meta={"width": 10}))
    assert (verdict.score, verdict.status) == (None, Status.UNPARSABLE_GOLD)
    assert "'height'" in verdict.reason


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a cat", "there is no box"),
        ("[1, 2, 3]", "there is no box"),
        ("[1, 2, 3, 4, 5]", "there is no box"),
        ("[10, 0, 0, 10]", "is not left, top, right, bottom"),
        ("[0, 0, 0.5, 1.5]", "1.5 lies outside of 0 to 1"),
        ("[0,0,1,1]" * 51, "51 boxes, at most 50"),
    ],
)
def test_text_without_a_box_is_unreadable_with_the_reason(text: str, why: str) -> None:
    verdict = get_rule("boxes", {"coordinates": "fraction"})(text, Example("[0,0,1,1]"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)
    assert why in verdict.reason


def test_a_threshold_is_reached_at_its_value() -> None:
    rule = get_rule("boxes", {"threshold": 0.5})
    assert rule("[0,0,5,10]", Example("[0,0,10,10]")).status is Status.CORRECT
    assert rule("[0,0,4.9,10]", Example("[0,0,10,10]")).status is Status.WRONG


SPANS = [
    "from 3.5 s to 10 s",
    "[3.5, 10]",
    "3.5s-10s",
    "between 3.5 and 10 seconds",
    "The event happens from 00:03.5 to 00:10.",
    "0:00:03.50 – 0:00:10",
    '{"start": 3.5, "end": 10}',
    "start: 3.5 s, end: 10 s",
    "从3.5秒到10秒",
    "0 min 3.5 s to 0 min 10 s",
    '{"start_time": "3.5", "end_time": "10"}',
    '{"start_time": 3.5, "end_time": 10}',
]


@pytest.mark.parametrize("text", SPANS)
def test_a_span_is_read_in_every_form(text: str) -> None:
    assert get_rule("temporal_iou")(text, Example("[3.5, 10]")).score == 1.0
    assert get_rule("temporal_iou")(text, Example("[0, 13]")).score == 0.5


def test_minutes_and_hours_count_in_seconds() -> None:
    assert get_rule("temporal_iou")("1:05 to 2:10", Example("[65, 130]")).score == 1.0
    assert (
        get_rule("temporal_iou")("1 minute 5 seconds to 2 minutes 10 seconds", Example("[65, 130]")).score
        == 1.0
    )
    assert get_rule("temporal_iou")("1:00:00 to 1:00:30", Example("[3600, 3630]")).score == 1.0


def test_several_spans_count_as_their_union() -> None:
    # 0–4 and 3–5 cover 5 of the 10 seconds.
    row = Example("", meta={"spans": [[0, 10]]})
    assert get_rule("temporal_iou", {"gold": "spans"})("0 to 4, and 3 to 5", row).score == 0.5
    assert (
        get_rule("temporal_iou", {"gold": "spans", "several": False})("0 to 4, and 3 to 5", row).score == 0.0
    )


def test_disjoint_spans_have_no_overlap() -> None:
    assert span_iou([(Fraction(0), Fraction(1))], [(Fraction(1), Fraction(2))]) == 0


@pytest.mark.parametrize("text", ["soon", "10", "10 to 3", "5 to 5"])
def test_text_without_a_span_is_unreadable(text: str) -> None:
    assert get_rule("temporal_iou")(text, Example("[3, 10]")).status is Status.UNPARSABLE_ANSWER
