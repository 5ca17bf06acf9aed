"""A few frames of a video as images, for pages and logs."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from data.example import Example, ImageRef
from data.videos.sampling import VideoLimits, choose
from data.videos.timeline import VideoRef

# Frames of each video that are shown.
SHOWN = 3


@dataclass(frozen=True)
class _Frame:
    """Loader of one of ``SHOWN`` evenly spread frames of a video, the first and the last among them."""

    video: VideoRef
    number: int

    def __call__(self) -> Image.Image:
        limits = VideoLimits(frames=4, max_tokens=4096)
        choice = choose(self.video.timeline(), limits)
        place = round(self.number * (len(choice.indices) - 1) / (SHOWN - 1))
        return next(self.video.read([choice.indices[place]]))


def pictures_of(example: Example) -> tuple[ImageRef, ...]:
    """Return references to an example's images and to a few frames of each of its videos."""
    frames = (
        ImageRef(f"frame {number + 1} of {SHOWN} of {video.origin}", _Frame(video, number))
        for video in example.videos
        for number in range(SHOWN)
    )
    return (*example.images, *frames)
