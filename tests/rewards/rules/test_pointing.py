"""The rule "point_in_box"."""

from __future__ import annotations

import pytest
from PIL import Image

from data import Example as Row
from data.images import image_ref
from rewards import Status, get_rule
from rewards.example import RewardExample as Example
from rewards.rules.pointing import read_points

FORMS = [
    "[5, 2]",
    "(5.0, 2)",
    "<point>5 2</point>",
    '{"x": 5, "y": 2}',
    "click(x=5, y=2)",
    "[{'action': 'click', 'point': [5, 2], 'input_text': 'no input text'}]",
    '```json\n{"point_2d": [5, 2], "label": "ok 1"}\n```',
    "5, 2",
    # Boxes count by their centre.
    "[0, 0, 10, 4]",
    '{"bbox_2d": [4, 1, 6, 3]}',
    "(0,0),(10,4)",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_point_is_read_in_every_form(text: str) -> None:
    assert read_points(text) == [(5, 2)]
    assert get_rule("point_in_box")(f"<answer>{text}</answer>", Example("[4, 1, 6, 3]")).score == 1.0
    assert get_rule("point_in_box")(f"<answer>{text}</answer>", Example("[6, 1, 9, 3]")).score == 0.0


@pytest.mark.parametrize(
    ("point", "score"),
    [("[4, 1]", 1), ("[6, 3]", 1), ("[3.99, 2]", 0), ("[6.01, 2]", 0), ("[5, 0.9]", 0), ("[-5, 2]", 0)],
)
def test_the_edge_belongs_to_the_box(point: str, score: int) -> None:
    assert get_rule("point_in_box")(point, Example("[4, 1, 6, 3]")).score == score


def test_any_of_several_gold_boxes_counts() -> None:
    gold = Example("[[0, 0, 1, 1], [4, 1, 6, 3]]")
    assert get_rule("point_in_box")("[5, 2]", gold).score == 1.0
    assert get_rule("point_in_box")("[2, 2]", gold).score == 0.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the upper left corner", "no point in"),
        ("[5, 2] or [9, 9]", "2 points, one is required"),
        ("[5, 2]" * 51, "51 points, at most 50"),
        ("[nan, 2]", "no point in"),
        ("[" * 20_000, "no point in"),
    ],
)
def test_other_answers_score_0_with_the_reason(text: str, reason: str) -> None:
    verdict = get_rule("point_in_box")(f"<answer>{text}</answer>", Example("[4, 1, 6, 3]"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)
    assert reason in verdict.reason


def test_a_gold_answer_without_a_box_has_no_score() -> None:
    verdict = get_rule("point_in_box")("[5, 2]", Example("[-100, -100]"))
    assert (verdict.score, verdict.status) == (None, Status.UNPARSABLE_GOLD)


def test_coordinates_are_converted_by_the_columns_or_by_the_image_itself() -> None:
    # 1000 × 500 pixels are resized to 1008 × 504; the gold box is the right half of the upper half.
    rule = get_rule("point_in_box", {"coordinates": "resized", "gold_coordinates": "fraction"})
    by_columns = Example("[0.5, 0, 1, 0.5]", meta={"width": 1000, "height": 500})
    picture = image_ref(Image.new("RGB", (1000, 500)))
    by_image = Row("1", "?", "[0.5, 0, 1, 0.5]", images=(picture,))
    for row in (by_columns, by_image):
        assert rule("[505, 251]", row).score == 1.0
        assert rule("[503, 251]", row).score == 0.0
        assert rule("[505, 253]", row).score == 0.0
    assert "no 'width'" in rule("[505, 251]", Example("[0.5, 0, 1, 0.5]")).reason


def test_an_image_that_has_vanished_leaves_no_score() -> None:
    rule = get_rule("point_in_box", {"coordinates": "absolute", "gold_coordinates": "fraction"})
    row = Row("1", "?", "[0.5, 0, 1, 0.5]", images=(image_ref("/nowhere/at/all.png"),))
    assert rule("[1, 1]", row).status is Status.UNPARSABLE_GOLD


def test_boxes_are_converted_by_the_image_too() -> None:
    rule = get_rule("boxes", {"coordinates": "absolute", "gold_coordinates": "fraction"})
    row = Row("1", "?", "[0, 0, 0.5, 1]", images=(image_ref(Image.new("RGB", (40, 20))),))
    assert rule("[0, 0, 20, 20]", row).score == 1.0
    assert rule("[0, 0, 20, 10]", row).score == 0.5
