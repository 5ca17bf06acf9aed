"""One training or evaluation row, and its images as references that are opened late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class ImageRef:
    """Where an image comes from; holds no pixels.

    Attributes:
        origin: what a person reads in messages: a path, ``bytes (12,345)``, ``drawn: clock #7``.
        load: opens the image anew at every call, so that nothing stays in memory between uses.
    """

    origin: str
    load: Callable[[], Image.Image]

    def open(self) -> Image.Image:
        """Return the decoded image in RGB. Raises ``DataError`` if it cannot be decoded."""
        image = self.load()
        return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True)
class Example:
    """A question about images with an answer that can be verified.

    Attributes:
        id: unique within its source.
        question: text; ``<image>`` or ``<image1>`` marks where an image belongs, else images come first.
        images: may be empty, may be many.
        answer: the gold answer.
        solution: a worked solution to imitate in a cold start, or None.
        choices: the options' texts for multiple choice, in order A, B, …; empty otherwise.
        source: which data set and row it comes from.
        meta: anything else that was in the row and asked for (subject, level, …).
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageRef, ...] = ()
    solution: str | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
