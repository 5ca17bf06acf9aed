"""Frames for pages and logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data import Example, ImageRef, video_ref
from data.videos.preview import pictures_of
from tests.fakes.videos import level, write_video


def test_an_example_is_shown_by_its_images_and_three_frames_of_each_video(
    tmp_path: Path, noise_image: Callable[..., ImageRef]
) -> None:
    image = noise_image(8, 8)
    example = Example("x", "q", "1", images=(image,), videos=(video_ref(write_video(tmp_path / "a.mp4")),))
    first, *frames = pictures_of(example)
    assert first is image
    assert [level(frame.open()) for frame in frames] == [0, 19, 29]
    assert "frame 2 of 3 of " in frames[1].origin
