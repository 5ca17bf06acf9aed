"""Half of the completions behind noised pictures: which see what, and how the noise fades."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout.noisy import NoiseSchedule, NoisyEngine

PROCESSOR = SimpleNamespace(
    image_processor=SimpleNamespace(
        image_mean=[0.5] * 3, image_std=[0.5] * 3, do_normalize=True, patch_size=2
    )
)
POLICY: Any = SimpleNamespace(processor=PROCESSOR, model=None)


class Recording:
    """An engine whose completions are the prompt and the seed that they were sampled with."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Any]]:
        return [[(prompt, seed) for seed in own] for prompt, own in zip(prompts, seeds, strict=True)]


def prompt() -> EncodedPrompt:
    vision = {"pixel_values": torch.zeros(4, 12), "image_grid_thw": torch.tensor([[1, 2, 2]])}
    return EncodedPrompt(torch.arange(3), torch.arange(3).unsqueeze(0), vision=vision)


def groups(steps: int, seeds: Sequence[Sequence[int]]) -> list[list[Any]]:
    engine: Any = Recording()
    own = [prompt() for _ in seeds]
    return NoisyEngine(engine, POLICY, steps).generate(own, Sampling(4), seeds)


def test_the_second_half_of_each_group_sees_a_noised_picture_and_keeps_its_seeds() -> None:
    found = groups(500, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert [[seed for _, seed in group] for group in found] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    for group in found:
        noised = [bool(seen.vision["pixel_values"].any()) for seen, _ in group]
        assert noised == [False, False, True, True]
    first, second = (group[2][0].vision["pixel_values"] for group in found)
    assert not torch.equal(first, second)


def test_the_noise_depends_on_the_seeds_alone() -> None:
    one, again = (groups(500, [[1, 2]])[0][1][0].vision["pixel_values"] for _ in range(2))
    assert torch.equal(one, again)


def test_without_noise_left_all_see_the_picture() -> None:
    (group,) = groups(0, [[1, 2]])
    assert not group[1][0].vision["pixel_values"].any()


def test_an_odd_number_of_seeds_is_an_error() -> None:
    with pytest.raises(ValueError, match="even number"):
        groups(500, [[1, 2, 3]])


def test_the_noise_fades_by_a_sigmoid() -> None:
    schedule = NoiseSchedule(500, 40, 30, 60)
    assert schedule.at(40) == 250
    # σ(30·(41 − 40)/60) = σ(1/2) = 0.6225, so that 188.8 are left.
    assert schedule.at(41) == 188
    steps = [schedule.at(number) for number in range(1, 61)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] == 499
    assert steps[-1] == 0
