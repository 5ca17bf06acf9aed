"""Positions after and inside of videos: by hand, against transformers, and from real seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from data import Example, ImageRef, VideoRef
from data.videos.pictures import PictureSequence
from mm_cpgd.policy import Policy
from mm_cpgd.policy.families import base_model
from mm_cpgd.policy.visual.positions import video_positions


def positions(
    types: list[int], grid: list[int], seconds: float, rate: float | None = 2.0, **options: Any
) -> Any:
    return video_positions(
        torch.tensor(types),
        options.pop("images", None),
        torch.tensor([grid]),
        torch.tensor([seconds]),
        merge=2,
        tokens_per_second=rate,
        pairs_apart=options.pop("pairs_apart", False),
    )


def test_time_advances_by_real_seconds_and_text_continues_after_the_largest_position() -> None:
    # Three text tokens, ten steps of 2 x 2 tokens a second apart at 2 positions a second, three text tokens.
    found = positions([0] * 3 + [2] * 40 + [0] * 3, [10, 4, 4], 1.0)
    assert found[:, :3].tolist() == [[0, 1, 2]] * 3
    assert found[0, 3:43:4].tolist() == [3, 5, 7, 9, 11, 13, 15, 17, 19, 21]
    assert found[1, 3:7].tolist() == [3, 3, 4, 4]
    assert found[2, 3:7].tolist() == [3, 4, 3, 4]
    assert found[:, 43:].tolist() == [[22, 23, 24]] * 3


@pytest.mark.parametrize(
    ("fps", "times"), [(2.0, [0, 2, 4, 6]), (4.0, [0, 1, 2, 3]), (0.9, [0, 4, 8, 13]), (8.0, [0, 0, 1, 1])]
)
def test_times_are_those_of_the_frame_rate(fps: float, times: list[int]) -> None:
    assert positions([2] * 4, [4, 2, 2], 2 / fps)[0].tolist() == times


def test_without_a_rate_each_step_is_one_position() -> None:
    assert positions([2] * 4 + [0], [4, 2, 2], 9.0, None)[0].tolist() == [0, 1, 2, 3, 4]


def test_pairs_apart_have_positions_of_their_own() -> None:
    # Text, 1 x 2 tokens, text, 1 x 2 tokens, text, as Qwen3-VL writes a time before every pair of frames.
    found = positions([0, 2, 2, 0, 2, 2, 0], [2, 2, 4], 1.0, pairs_apart=True)
    assert found.tolist() == [[0, 1, 1, 3, 4, 4, 6], [0, 1, 1, 3, 4, 4, 6], [0, 1, 2, 3, 4, 5, 6]]


def test_images_and_videos_are_told_apart() -> None:
    found = positions([1, 0, 2, 2, 1], [2, 2, 2], 1.0, images=torch.tensor([[1, 2, 2], [1, 2, 2]]))
    assert found[0].tolist() == [0, 1, 2, 4, 5]


def video(noise_image: Callable[..., ImageRef], frames: int, fps: float, size: int = 112) -> VideoRef:
    return VideoRef(
        "noise", PictureSequence("noise", tuple(noise_image(size, size, n) for n in range(frames)), fps)
    )


def test_short_videos_have_the_positions_of_transformers(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    # 4 frames at 4 a second are two steps half a second apart: at 4 positions a second 0 and 2, fewer than
    # the 4 x 4 tokens of a frame, so that every convention continues at the same place.
    example = Example("x", "When?", "1", videos=(video(noise_image, 4, 4.0),))
    inputs = tiny_policy.encoder.inputs(example)
    own = tiny_policy.encoder.encode(example).positions
    theirs, _ = base_model(tiny_policy.model).get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    assert torch.equal(own, theirs[:, 0])


def test_positions_depend_on_the_seconds_between_frames(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    fast, slow = (
        tiny_policy.encoder.encode(Example("x", "When?", "1", videos=(video(noise_image, 8, fps),)))
        for fps in (2.0, 0.5)
    )
    assert torch.equal(fast.input_ids, slow.input_ids)
    token = tiny_policy.model.config.video_token_id
    times = [prompt.positions[0][prompt.input_ids == token].unique() for prompt in (fast, slow)]
    assert (times[0] - times[0][0]).tolist() == [0, 4, 8, 12]
    assert (times[1] - times[1][0]).tolist() == [0, 16, 32, 48]
