"""Shipped config ``satori``: one completion scored by hand."""

from __future__ import annotations

import math

import pytest

from mm_cpgd.config.loading import load_config
from mm_cpgd.training.setup import build_rewards
from rewards.example import RewardExample as Example

# 1000 × 1000 is resized for the model to 616 × 616: the gold box there is 154 to 462 of each side.
ROW = Example(
    "a dog",
    meta={
        "image_caption": "the cat sat on the mat",
        "bboxs": "[[250, 250, 750, 750]]",
        "width": 1000,
        "height": 1000,
    },
)
COMPLETION = (
    "<caption>a cat on the mat</caption>\n<bbox>[[154, 154, 308, 462]]</bbox>\n<answer>{answer}</answer>"
)


def test_a_completion_gets_the_sum_of_its_stages() -> None:
    scored = build_rewards(load_config("satori")).score_one(COMPLETION.format(answer="Dog"), ROW)
    bleu = math.exp(1 - 6 / 5) * (4 / 5 * 2 / 4 * 1 / 3 * 0.1 / 2) ** 0.25
    expected = {"answer": 1.0, "format": 1.0, "bleu": bleu, "rouge_l": 8 / 11, "regions": 0.5}
    assert {name: one.score for name, one in scored.components.items()} == pytest.approx(expected, abs=1e-8)
    assert scored.total == pytest.approx(2.5 + (bleu + 8 / 11) / 2, abs=1e-8)


def test_a_wrong_answer_keeps_the_scores_of_its_other_stages() -> None:
    rewards = build_rewards(load_config("satori"))
    right, wrong = (rewards.score_one(COMPLETION.format(answer=word), ROW).total for word in ("dog", "cat"))
    assert right is not None
    assert wrong == pytest.approx(right - 1)


def test_all_stages_right_are_worth_four() -> None:
    text = "<caption>The cat sat on the mat</caption><bbox>[[154, 154, 462, 462]]</bbox><answer>dog</answer>"
    assert build_rewards(load_config("satori")).score_one(text, ROW).total == pytest.approx(4.0, abs=1e-8)


def test_the_pixel_limits_of_the_regions_are_those_of_the_policy() -> None:
    config = load_config("satori")
    regions = next(one for one in config.rewards if one.name == "regions")
    limits = (regions.options["min_pixels"], regions.options["max_pixels"])
    assert limits == (config.policy.min_pixels, config.policy.max_pixels)
