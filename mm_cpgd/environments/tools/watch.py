"""Tools that show a moment of a video again: the policy sees a video's frames few and small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from PIL import Image

from data.example import Example, ImageRef
from data.videos.timeline import VideoRef
from mm_cpgd.environments.coordinates import ToolError, View
from mm_cpgd.environments.images import fit


@dataclass(frozen=True)
class Frame:
    """Loader of one frame of a video.

    Attributes:
        video: the video.
        index: of the frame in its timeline.
        shape: (width, height) that it is resized to.
    """

    video: VideoRef
    index: int
    shape: tuple[int, int]

    def __call__(self) -> Image.Image:
        """Decode the frame. Raises ``DataError``."""
        image = next(iter(self.video.read([self.index])))
        return image if image.size == self.shape else image.resize(self.shape, Image.Resampling.BICUBIC)

    def size(self) -> tuple[int, int]:
        """Return (width, height) without opening anything."""
        return self.shape


def frame_at(seconds: float, example: Example, view: View, video: Annotated[int, Ge(1)] = 1) -> ImageRef:
    """Show the frame of a video at a time, as large as it is.

    Args:
        seconds: the time, counted from the beginning of the video.
        example: given by the environment.
        view: given by the environment.
        video: number of the video, counted from 1.

    Raises:
        ToolError: there is no such video, or the time is outside it.
        DataError: the video cannot be read any more.
    """
    if video > len(example.videos):
        have = {0: "no video", 1: "1 video"}.get(len(example.videos), f"{len(example.videos)} videos")
        raise ToolError(f"there is no video {video}; the question has {have}")
    found = example.videos[video - 1]
    timeline = found.timeline()
    if not 0 <= seconds <= timeline.duration:
        raise ToolError(f"{seconds:g} is outside the video, which lasts {timeline.duration:g} seconds")
    # The frame that a player shows then: the last one that has appeared.
    index = int(np.searchsorted(timeline.seconds, seconds, side="right")) - 1
    shape = fit(timeline.width, timeline.height, view.image_pixels, enlarge=False)
    return ImageRef(
        f"frame at {timeline.seconds[index]:.2f} s of {found.origin}"[:200], Frame(found, index, shape)
    )
