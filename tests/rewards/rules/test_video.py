"""The rule "video_answer": by hand for each task, and rows whose task is unknown."""

from __future__ import annotations

from typing import Any

import pytest

from rewards import Status, get_rule
from rewards.example import RewardExample as Example


def score(completion: str, answer: str, meta: dict[str, Any], **options: Any) -> float | None:
    return get_rule("video_answer", options)(completion, Example(answer, meta=meta)).score


def test_a_question_is_scored_by_its_answer() -> None:
    assert score("<answer>blue</answer>", "blue", {"task": "qa", "span": "1 to 2"}) == 1.0
    assert score("<answer>red</answer>", "blue", {"task": "qa"}) == 0.0
    assert score("<answer>\\boxed{7}</answer>", "7", {}) == 1.0


def test_an_option_is_scored_by_its_letter() -> None:
    row = Example("B", choices=("it falls", "it rises"), meta={"task": "qa"})
    rule = get_rule("video_answer")
    assert rule("<answer>B</answer>", row).score == 1.0
    assert rule("<answer>it falls</answer>", row).score == 0.0


def test_a_grounding_row_is_scored_by_the_overlap_of_its_span() -> None:
    # 2 to 8 and 4 to 10 share 4 of 8 seconds.
    assert score("<answer>4 to 10</answer>", "2 to 8", {"task": "grounding"}) == 0.5
    assert score("<answer>8 to 10</answer>", "0 to 2", {"task": "grounding"}) == 0.0
    assert score("<answer>soon</answer>", "0 to 2", {"task": "grounding"}) == 0.0
    assert score("<answer>0 to 30</answer>", "10 to 12", {"task": "grounding"}) == pytest.approx(1 / 15)


GROUNDED = [
    ("<answer>blue</answer><span>2 to 8</span>", 1.0),
    ("<answer>blue</answer><span>4 to 10</span>", 0.75),
    ("<answer>red</answer><span>2 to 8</span>", 0.5),
    ("<answer>blue</answer>", 0.5),
    ("<answer>red</answer>", 0.0),
]


@pytest.mark.parametrize(("completion", "expected"), GROUNDED)
def test_a_grounded_answer_is_the_mean_of_both(completion: str, expected: float) -> None:
    assert score(completion, "blue", {"span": [[2, 8]]}) == expected
    assert score(completion, "blue", {"task": "grounded_qa", "span": "2 to 8"}) == expected


def test_the_share_of_the_span_is_an_option() -> None:
    row = {"task": "grounded_qa", "span": "2 to 8"}
    assert score("<answer>blue</answer><span>4 to 10</span>", "blue", row, share=0.2) == 0.9


def test_several_spans_are_unreadable_unless_allowed() -> None:
    answer = "<answer>0 to 1 and 5 to 6</answer>"
    assert score(answer, "[[0, 1], [5, 6]]", {"task": "grounding"}) == 0.0
    assert score(answer, "[[0, 1], [5, 6]]", {"task": "grounding"}, several=True) == 1.0


def test_a_row_that_cannot_be_scored_has_no_score() -> None:
    verdict = get_rule("video_answer")("<answer>3 to 4</answer>", Example("x", meta={"task": "guess"}))
    assert verdict.score is None
    assert verdict.status is Status.UNPARSABLE_GOLD
    assert "one of qa, grounding, grounded_qa" in verdict.reason
    assert score("<answer>x</answer><span>1 to 2</span>", "x", {"task": "grounded_qa"}) is None
