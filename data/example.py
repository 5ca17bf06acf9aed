"""Example: one row with its images as references, the ``<image>`` markers of its text, and ``DataError``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


class DataError(ValueError):
    """Data that cannot be used; the message says what, where and what to do."""


MARKER = re.compile(r"<image(\d*)>")


def split_at_images(text: str, images: int) -> list[str | int]:
    """Cut ``text`` into strings and image indices (from 0), each of the ``images`` exactly once.

    Images without a marker come first, in order. A marker that names an image a second time is a mention,
    not a place: it becomes the words ``image 1``.

    Raises:
        DataError: a marker has no image.
    """
    numbered = {int(digits) - 1 for digits in MARKER.findall(text) if digits}
    unnamed = iter([index for index in range(images) if index not in numbered])
    placed: list[int] = []
    pieces: list[str | int] = []
    start = 0
    for match in MARKER.finditer(text):
        index = int(match[1]) - 1 if match[1] else next(unnamed, -1)
        if not 0 <= index < images:
            raise DataError(f"the text has {match[0]}, but the row has {_count(images)}")
        pieces += [text[start : match.start()], f"image {index + 1}" if index in placed else index]
        placed.append(index)
        start = match.end()
    pieces.append(text[start:])
    return [*(index for index in range(images) if index not in placed), *_joined(pieces)]


def _joined(pieces: list[str | int]) -> list[str | int]:
    joined: list[str | int] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined


def _count(images: int) -> str:
    return {0: "no image", 1: "1 image"}.get(images, f"{images} images")


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
