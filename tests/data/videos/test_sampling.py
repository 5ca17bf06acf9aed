"""Choice of frames: counts of qwen-vl-utils by hand, places in time, sizes within the limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import DataError
from data.videos.sampling import Patches, VideoLimits, choose
from data.videos.timeline import Timeline


def even(frames: int, rate: float, size: tuple[int, int] = (112, 112)) -> Timeline:
    return Timeline(np.arange(frames) / rate, frames / rate, *size, rate)


# frames of the video, its rate; chosen frames, chosen frames per second (by hand from smart_nframes)
COUNTS = [
    (300, 30.0, 20, 2.0),
    (45, 30.0, 4, 4 / 45 * 30),
    (310, 30.0, 20, 20 / 310 * 30),
    (100, 25.0, 8, 2.0),
    (3, 30.0, 2, 20.0),
    (100_000, 25.0, 64, 64 / 100_000 * 25),
]


@pytest.mark.parametrize(("frames", "rate", "count", "fps"), COUNTS)
def test_frame_counts_are_those_of_qwen_vl_utils(frames: int, rate: float, count: int, fps: float) -> None:
    chosen = choose(even(frames, rate), VideoLimits())
    assert len(chosen.indices) == count
    assert chosen.fps == pytest.approx(fps)
    assert chosen.indices[0] == 0
    assert chosen.indices[-1] == frames - 1


def test_places_are_evenly_spread_ends_included() -> None:
    assert choose(even(10, 2.0), VideoLimits(fps=0.8)).indices == (0, 3, 6, 9)
    assert choose(even(10, 2.0), VideoLimits(fps=0.8)).seconds == (0, 1.5, 3.0, 4.5)


def test_a_fixed_number_of_frames_replaces_the_rate() -> None:
    assert len(choose(even(300, 30.0), VideoLimits(frames=6)).indices) == 6
    assert len(choose(even(5, 30.0), VideoLimits(frames=6)).indices) == 4


def test_frames_that_are_not_evenly_spaced_are_chosen_by_the_time_that_they_are_shown() -> None:
    seconds = np.array([0.0, 0.1, 0.2, 4.0, 5.0, 6.0])
    chosen = choose(Timeline(seconds, 7.0, 112, 112, None), VideoLimits(frames=4))
    # At 0, 2, 4 and 6 s; at 2 s the third frame is still on the screen.
    assert chosen.indices == (0, 2, 3, 5)
    assert chosen.seconds == (0.0, 2.0, 4.0, 6.0)
    assert chosen.fps == pytest.approx(4 / 7)


def test_a_single_frame_is_seen_twice() -> None:
    chosen = choose(even(1, 25.0), VideoLimits())
    assert (chosen.indices, chosen.ticks) == ((0, 0), (0, 0))


def test_eight_frames_of_112_pixels_are_64_tokens() -> None:
    chosen = choose(even(100, 25.0), VideoLimits())
    assert chosen.size == (112, 112)
    assert chosen.tokens(Patches()) == 64


def test_videos_of_a_prompt_share_the_tokens() -> None:
    video = even(300, 30.0, (1280, 720))
    alone, shared = (choose(video, VideoLimits(max_tokens=800), videos=count) for count in (1, 2))
    assert 600 < alone.tokens(Patches()) <= 800
    assert 300 < shared.tokens(Patches()) <= 400


def test_limits_that_leave_no_frame_are_an_error() -> None:
    with pytest.raises(DataError, match="too few for 2 frames of 3,136 pixels"):
        choose(even(30, 10.0), VideoLimits(max_tokens=3))
    with pytest.raises(DataError, match="more than 200 times"):
        choose(even(30, 10.0, (4, 1000)), VideoLimits())


@given(
    frames=st.integers(1, 5000),
    rate=st.floats(1, 240),
    width=st.integers(16, 3000),
    height=st.integers(16, 3000),
    tokens=st.integers(8, 5000),
    uneven=st.booleans(),
)
def test_no_video_exceeds_the_limits(
    frames: int, rate: float, width: int, height: int, tokens: int, *, uneven: bool
) -> None:
    limits = VideoLimits(max_tokens=tokens, max_frames=32, min_frames=2)
    video = Timeline(np.arange(frames) / rate, frames / rate, width, height, None if uneven else rate)
    chosen = choose(video, limits)
    assert chosen.tokens(Patches()) <= tokens
    assert 2 <= len(chosen.indices) <= 32
    assert len(chosen.indices) % 2 == 0
    assert list(chosen.indices) == sorted(chosen.indices)
    assert chosen.indices[0] >= 0
    assert chosen.indices[-1] < frames
    assert chosen.size[0] % 28 == chosen.size[1] % 28 == 0
    assert chosen.size[0] * chosen.size[1] <= limits.max_pixels
    assert min(chosen.size) > 0
