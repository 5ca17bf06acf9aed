"""Scores of conversations, given turn by turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from data import Example
from mm_cpgd.environments import ToolEnvironment
from mm_cpgd.environments.call_formats import write_call
from rewards import Status, Verdict


def run(example: Example, scores: dict[str, Any], *turns: str, **options: Any) -> list[dict[str, Any]]:
    made = ToolEnvironment(
        0, ["zoom", "rotate", "calculator"], scores=scores, coordinates="absolute", **options
    )
    made.reset(example)
    return [dict(made.step(turn).scores) for turn in turns]


def zoom(*box: float, image: int = 1) -> str:
    return write_call("zoom", {"box": list(box), "image": image})


def values(scores: list[dict[str, Any]], name: str) -> list[float]:
    found = [one[name] for one in scores if name in one]
    return [one.score if isinstance(one, Verdict) else one for one in found]


def test_crop_iou_adds_up_to_the_best_crop(example: Example) -> None:
    # The gold box is 100 to 150, 50 to 75: IoU 1/4 with 100 × 50 pixels around it, 1 with itself.
    turns = [zoom(75, 25, 175, 75), zoom(0, 0, 10, 10), zoom(100, 50, 150, 75), zoom(75, 25, 175, 75), "red"]
    assert values(run(example, {"crop_iou": {}}, *turns), "crop_iou") == pytest.approx([0.25, 0, 0.75, 0])


def test_a_crop_of_a_crop_counts_by_what_it_shows(example: Example) -> None:
    # The second image shows x 100 to 200, y 0 to 100 at 633 × 633 pixels; the gold box is in its left half.
    turns = [zoom(100, 0, 200, 100), zoom(0, 316.5, 316.5, 474.75, image=2)]
    got = values(run(example, {"crop_iou": {}}, *turns), "crop_iou")
    assert got[0] == pytest.approx(1250 / 10_000)
    assert sum(got) == pytest.approx(1, abs=0.02)


def test_crop_iou_without_a_crop_is_zero_or_absent(example: Example) -> None:
    turns = [write_call("rotate", {"degrees": 90}), zoom(1, 2, 3, 4, image=9), "<tool_call>", "red"]
    assert values(run(example, {"crop_iou": {}}, *turns), "crop_iou") == [0, 0, 0]
    assert values(run(example, {"crop_iou": {}}, "red"), "crop_iou") == []


def test_crop_iou_of_boxes_that_refer_to_another_size(example: Example) -> None:
    scaled = replace(example, meta={"gold": "[50, 25, 75, 37.5]", "size": [100, 50]})
    scores = {"crop_iou": {"box": "gold", "size": "size"}}
    assert values(run(scaled, scores, zoom(100, 50, 150, 75)), "crop_iou") == pytest.approx([1])


@pytest.mark.parametrize("meta", [{}, {"box": "none"}, {"box": [1, 2]}])
def test_a_gold_box_that_cannot_be_read_scores_nothing(example: Example, meta: dict[str, Any]) -> None:
    (scores,) = run(replace(example, meta=meta), {"crop_iou": {}}, zoom(0, 0, 9, 9))
    assert (scores["crop_iou"].score, scores["crop_iou"].status) == (None, Status.UNPARSABLE_GOLD)


def test_calls_cost_after_the_free_ones(example: Example) -> None:
    call = write_call("calculator", {"expression": "1"})
    assert values(run(example, {"call_cost": {}}, call * 2, call, "1"), "call_cost") == [-2, -1]
    assert values(run(example, {"call_cost": {"free": 1}}, call * 2, call, "1"), "call_cost") == [-1, -1]
    assert values(run(example, {"call_cost": {"free": 9}}, call), "call_cost") == [0]


def test_malformed_calls_cost(example: Example) -> None:
    turns = ["<tool_call>{</tool_call>" + write_call("zoom", {}), zoom(0, 0, 9, 9), "red"]
    assert values(run(example, {"malformed_cost": None}, *turns), "malformed_cost") == [-2]


@pytest.mark.parametrize(
    ("turns", "score"),
    [
        ((zoom(0, 0, 9, 9), "<answer>red</answer>"), 1),
        ((zoom(0, 0, 9, 9), "<answer>blue</answer>"), 0),
        (("<answer>red</answer>",), 0),
        ((zoom(9, 9, 0, 0), "<answer>red</answer>"), 0),
    ],
)
def test_the_bonus_needs_a_call_and_the_right_answer(
    example: Example, turns: tuple[str, ...], score: float
) -> None:
    got = run(example, {"tool_bonus": {}}, *turns)
    assert values(got, "tool_bonus") == [score]
    assert "tool_bonus" in got[-1]


def test_the_bonus_may_be_for_some_tools_only(example: Example) -> None:
    turns = (write_call("calculator", {"expression": "1"}), "<answer>red</answer>")
    assert values(run(example, {"tool_bonus": {"tools": ["zoom"]}}, *turns), "tool_bonus") == [0]


def test_answered_tells_answers_from_limits(example: Example) -> None:
    call = zoom(0, 0, 9, 9)
    assert values(run(example, {"answered": {}}, call, "red"), "answered") == [1]
    assert values(run(example, {"answered": {}}, call, call, max_turns=2), "answered") == [0]


def test_a_score_may_be_a_function(example: Example) -> None:
    assert run(example, {"turn": lambda progress: float(progress.turn)}, "red") == [{"turn": 1.0}]
