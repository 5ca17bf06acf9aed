"""Timeline of a video, the interface of its source, and the reference that an ``Example`` holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Timeline:
    """The frames of a video, or of the clip of it that a row names, without their pixels.

    Attributes:
        seconds: (F,) when each frame appears, ascending, counted from the beginning of the clip; the first
            is 0.
        duration: seconds from the beginning of the clip to its end.
        width: pixels of an upright frame.
        height: likewise.
        rate: frames per second if they are evenly spaced, else None.
    """

    seconds: NDArray[np.float64]
    duration: float
    width: int
    height: int
    rate: float | None

    def __len__(self) -> int:
        return len(self.seconds)


class VideoSource(Protocol):
    """Reads a video afresh on every call, so that no pixels stay in memory between uses."""

    def timeline(self) -> Timeline:
        """Return the frames' times and size. Raises ``DataError``."""
        ...

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the upright RGB frames of these indices of the timeline, ascending. Raises ``DataError``."""
        ...


@dataclass(frozen=True)
class VideoRef:
    """Reference to a video; holds no pixels.

    Attributes:
        origin: name in messages: a path with its clip, ``bytes (12,345)``, ``drawn: motion-0-7``.
        source: reads it.
    """

    origin: str
    source: VideoSource

    def timeline(self) -> Timeline:
        """Return the times of the frames and their size; decodes one frame. Raises ``DataError``."""
        return self.source.timeline()

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the upright RGB frames of these indices of the timeline, ascending. Raises ``DataError``."""
        return self.source.read(indices)
