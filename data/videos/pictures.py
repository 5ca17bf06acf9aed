"""Videos that are given as pictures: a list of images, or a folder of them, at an even rate."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.example import DataError, ImageRef
from data.images import image_ref, image_size
from data.videos.timeline import Timeline

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureSequence:
    """A ``VideoSource`` of images.

    Attributes:
        origin: name in messages.
        pictures: the frames in order; at least one.
        fps: frames per second.
        start: beginning of the clip in seconds, None for the first frame.
        end: its end, None for that of the last frame.
    """

    origin: str
    pictures: tuple[ImageRef, ...]
    fps: float
    start: float | None = None
    end: float | None = None

    def timeline(self) -> Timeline:
        """See ``VideoSource``; all frames have the size of the first."""
        clip = self._clip()
        width, height = image_size(clip[0])
        return Timeline(np.arange(len(clip)) / self.fps, len(clip) / self.fps, width, height, self.fps)

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """See ``VideoSource``."""
        clip = self._clip()
        for index in indices:
            yield clip[index].open()

    def _clip(self) -> tuple[ImageRef, ...]:
        if self.start is None and self.end is None:
            return self.pictures
        times = [number / self.fps for number in range(len(self.pictures))]
        first = max(0, bisect.bisect_right(times, (self.start or 0.0) + 1e-6) - 1)
        stop = len(times) if self.end is None else bisect.bisect_left(times, self.end - 1e-6)
        length = len(times) / self.fps
        if (self.start or 0.0) >= min(length, self.end if self.end is not None else length):
            raise DataError(
                f"video {self.origin} lasts {length:.2f} s; its clip from {self.start} to {self.end} s is "
                "empty"
            )
        return self.pictures[first : max(stop, first + 1)]


@dataclass(frozen=True)
class PictureFolder:
    """A ``VideoSource`` of the images in a folder, in the order of the numbers in their names."""

    origin: str
    folder: Path
    fps: float
    max_pixels: int
    start: float | None = None
    end: float | None = None

    def timeline(self) -> Timeline:
        """See ``VideoSource``."""
        return self._sequence().timeline()

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """See ``VideoSource``."""
        return self._sequence().read(indices)

    def _sequence(self) -> PictureSequence:
        files = [file for file in self.folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()]
        if not files:
            raise DataError(f"video {self.origin} is a folder without images")
        refs = tuple(image_ref(file, max_pixels=self.max_pixels) for file in sorted(files, key=_natural))
        return PictureSequence(self.origin, refs, self.fps, self.start, self.end)


def _natural(file: Path) -> list[tuple[int, str]]:
    """Return a key by which frame 2 precedes frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]
