"""Conversations as the rollout log stores them: which part of the prompt's image a crop shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from data import Example
from data.generated import generate
from mm_cpgd.environments import ToolEnvironment
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.rollout import Completion
from mm_cpgd.rollout.engine import Talk, Turn
from mm_cpgd.tracking import LoggedTurn
from mm_cpgd.training.rollouts.records import record_of
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from rewards import RewardSum

ROW = generate(("detail",), 1, seed=4)[0]


def logged(example: Example, *calls: tuple[str, dict[str, Any]]) -> list[LoggedTurn]:
    """Return the turns of a conversation with these calls, as the log stores them."""
    environment = ToolEnvironment(0, ["zoom", "rotate"], image_pixels=12_544)
    environment.reset(example)
    texts = [write_call(name, arguments) for name, arguments in calls]
    turns = tuple(Turn(text, 1, environment.step(text)) for text in [*texts, "<answer>circle</answer>"])
    talk = Talk(turns, torch.ones(len(turns), dtype=torch.bool))
    one = Completion(torch.arange(len(turns)), torch.zeros(len(turns)), turns[-1].text, True, talk=talk)
    scored = CompletionScorer(RewardSum([("accuracy", 1.0, {})]), {}).score([one], [example])
    return list(record_of(example, [one], scored, [0.5]).completions[0].turns)


def test_a_crop_and_a_crop_of_it_are_parts_of_the_prompts_image() -> None:
    first, second, last = logged(
        ROW, ("zoom", {"box": [0, 500, 500, 1000]}), ("zoom", {"box": [500, 0, 1000, 500], "image": 2})
    )
    assert first.parts == ((0, 0, 0.5, 0.5, 1),)
    assert second.parts == (pytest.approx((0, 0.25, 0.5, 0.5, 0.75)),)
    assert len(first.pictures) == len(second.pictures) == 1
    assert last.parts == ()


def test_a_turned_image_is_no_part_of_it() -> None:
    turned, _ = logged(ROW, ("rotate", {"degrees": 90}))
    assert turned.parts == ()
    assert len(turned.pictures) == 1
