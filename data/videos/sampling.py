"""Choice of a video's frames and of their size, within limits of frames, pixels and tokens.

The numbers of frames and their places are those of qwen-vl-utils (``smart_nframes``), with which the Qwen-VL
models were trained; frames that are not evenly spaced are chosen by their time instead of their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.example import DataError
from data.videos.timeline import Timeline, VideoRef

# Ticks per second of the clock of a video whose frames are not evenly spaced.
TICKS = 1000
# Longest side of a frame over its shortest, as the processors of the Qwen family limit it.
MAX_RATIO = 200


@dataclass(frozen=True)
class Patches:
    """What one vision token covers: ``side`` × ``side`` pixels of ``frames`` successive frames."""

    side: int = 28
    frames: int = 2


@dataclass(frozen=True)
class VideoLimits:
    """Which frames of a video a model sees, and how large.

    Attributes:
        fps: frames per second of video; without effect if ``frames`` is given.
        frames: number of frames of every video, or None.
        min_frames: fewest frames, as far as the video has so many.
        max_frames: most frames.
        min_pixels: a smaller frame is enlarged to this area.
        max_pixels: a larger frame is shrunk to this area.
        max_tokens: most vision tokens of all videos of a prompt together.
    """

    fps: float = 2.0
    frames: int | None = None
    min_frames: int = 4
    max_frames: int = 64
    min_pixels: int = 56 * 56
    max_pixels: int = 768 * 28 * 28
    max_tokens: int = 2048


@dataclass(frozen=True)
class Choice:
    """The chosen frames of a video.

    Attributes:
        indices: (n,) of the frames in the timeline, ascending; one may occur twice.
        ticks: (n,) when each is looked at, in ticks from the beginning of the clip.
        rate: ticks per second: the frame rate of a video with evenly spaced frames.
        total: ticks of the whole clip.
        size: (width, height) in pixels that each frame is scaled to.
    """

    indices: tuple[int, ...]
    ticks: tuple[int, ...]
    rate: float
    total: int
    size: tuple[int, int]

    @property
    def seconds(self) -> tuple[float, ...]:
        """When each frame is looked at, in seconds from the beginning of the clip."""
        return tuple(tick / self.rate for tick in self.ticks)

    @property
    def fps(self) -> float:
        """Chosen frames per second, as transformers and qwen-vl-utils compute it."""
        return len(self.ticks) / self.total * self.rate

    def tokens(self, patches: Patches) -> int:
        """Return the number of vision tokens."""
        width, height = self.size
        return len(self.indices) // patches.frames * (width // patches.side) * (height // patches.side)


@dataclass(frozen=True)
class VideoFrames:
    """Decoded frames of a video: RGB images of the size of the choice, and the choice."""

    images: tuple[Image.Image, ...]
    choice: Choice


def choose(
    timeline: Timeline, limits: VideoLimits, patches: Patches | None = None, videos: int = 1
) -> Choice:
    """Choose frames and their size; depends on times and size of the frames alone.

    Args:
        timeline: of the video.
        limits: of frames, pixels and tokens.
        patches: what a vision token covers; None: as in Qwen2.5-VL.
        videos: number of videos that share ``limits.max_tokens``.

    Raises:
        DataError: the limits leave no frame, or a frame is much longer in one direction than in the other.
    """
    patches = patches or Patches()
    tokens = limits.max_tokens // videos
    count = _frame_count(timeline, limits, patches, tokens)
    size = _frame_size(timeline, count, limits, patches, tokens)
    if len(timeline) == 1:  # a still picture: the model reads frames in pairs
        rate = timeline.rate or TICKS
        return Choice((0,) * count, (0,) * count, rate, max(1, round(timeline.duration * rate)), size)
    if timeline.rate is not None:
        indices = np.linspace(0, len(timeline) - 1, count).round().astype(int).tolist()
        return Choice(tuple(indices), tuple(indices), timeline.rate, len(timeline), size)
    times = np.linspace(0, float(timeline.seconds[-1]), count)
    # The frame that is on the screen at a time is the last one that has appeared by then.
    shown = np.searchsorted(timeline.seconds, times + 1e-6, side="right") - 1
    ticks = (times * TICKS).round().astype(int).tolist()
    return Choice(tuple(shown.tolist()), tuple(ticks), TICKS, round(timeline.duration * TICKS), size)


def read_frames(ref: VideoRef, choice: Choice) -> VideoFrames:
    """Decode the chosen frames, each scaled as soon as it is read. Raises ``DataError``."""
    distinct = sorted(set(choice.indices))
    images: dict[int, Image.Image] = {}
    for index, image in zip(distinct, ref.read(distinct), strict=True):
        images[index] = scaled(image, choice.size)
    return VideoFrames(tuple(images[index] for index in choice.indices), choice)


def scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image in this size (width, height)."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _frame_count(timeline: Timeline, limits: VideoLimits, patches: Patches, tokens: int) -> int:
    step, present = patches.frames, len(timeline)
    # Frames of the smallest size must fit into the tokens.
    fitting = tokens // max(1, math.ceil(limits.min_pixels / patches.side**2)) * step
    most = min(limits.max_frames, fitting) // step * step
    if most < step:
        raise DataError(
            f"{tokens:,} tokens a video are too few for {step} frames of {limits.min_pixels:,} pixels; raise "
            "max_tokens or lower min_pixels"
        )
    if present < step:
        return step
    most = min(most, present // step * step)
    if limits.frames is not None:
        return max(step, min(limits.frames // step * step, most))
    least = -(-limits.min_frames // step) * step
    # Evenly spaced frames count as the libraries count them; others by the time that they last.
    wanted = (present / timeline.rate if timeline.rate else timeline.duration) * limits.fps
    # Rates that are read from a file are rounded; 19.999 frames are 20.
    return max(step, math.floor(min(max(wanted, least), most) / step + 1e-3) * step)


def _frame_size(
    timeline: Timeline, count: int, limits: VideoLimits, patches: Patches, tokens: int
) -> tuple[int, int]:
    """Return (width, height) in multiples of a patch, of about the frame's proportions."""
    width, height, side = timeline.width, timeline.height, patches.side
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(f"a frame of {width:,} × {height:,} pixels is more than {MAX_RATIO} times as long")
    most = min(limits.max_pixels, tokens // (count // patches.frames) * side**2)
    columns, rows = max(1, round(width / side)), max(1, round(height / side))
    if columns * rows * side**2 > most:
        scale = math.sqrt(most / (width * height))
        columns = max(1, math.floor(width * scale / side))
        rows = max(1, math.floor(height * scale / side))
        # Only where one side is a single patch can the product still be too large.
        columns = min(columns, max(1, most // side**2 // rows))
        rows = min(rows, max(1, most // side**2 // columns))
    elif columns * rows * side**2 < limits.min_pixels:
        scale = math.sqrt(limits.min_pixels / (width * height))
        columns, rows = math.ceil(width * scale / side), math.ceil(height * scale / side)
        while columns * rows * side**2 > max(most, side**2) and max(columns, rows) > 1:
            columns, rows = (columns - 1, rows) if columns >= rows else (columns, rows - 1)
    return columns * side, rows * side
