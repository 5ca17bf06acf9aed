"""Example: one row with its images and videos as references, the markers of its text, and ``DataError``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from PIL import Image

from data.videos.timeline import VideoRef


class DataError(ValueError):
    """Data that cannot be used; the message names the problem, its place and the remedy."""


MARKER = re.compile(r"<image(\d*)>")
VIDEO_MARKER = re.compile(r"<video(\d*)>")
_MARKERS = re.compile(r"<(image|video)(\d*)>")


@dataclass(frozen=True)
class Place:
    """Position of an image or a video in a text: its index (from 0) among those of its kind."""

    kind: Literal["image", "video"]
    index: int


def split_at_media(text: str, images: int, videos: int = 0) -> list[str | Place]:
    """Split ``text`` into strings and places, each of the images and videos exactly once.

    Those without a marker come first, images before videos, in order. A marker that names one a second time
    is a mention of it, not its position: it is replaced by the words ``image 1`` or ``video 1``.

    Raises:
        DataError: a marker without an image or video.
    """
    counts = {"image": images, "video": videos}
    found = [(match, *_kind_and_digits(match)) for match in _MARKERS.finditer(text)]
    numbered = {Place(kind, int(digits) - 1) for _, kind, digits in found if digits}
    unnamed = {
        kind: iter([place for index in range(count) if (place := Place(kind, index)) not in numbered])
        for kind, count in _counted(images, videos)
    }
    placed: list[Place] = []
    pieces: list[str | Place] = []
    start = 0
    for match, kind, digits in found:
        place = Place(kind, int(digits) - 1) if digits else next(unnamed[kind], Place(kind, -1))
        if not 0 <= place.index < counts[kind]:
            raise DataError(f"the text has {match[0]}, but the row has {_count(counts[kind], kind)}")
        pieces += [text[start : match.start()], f"{kind} {place.index + 1}" if place in placed else place]
        placed.append(place)
        start = match.end()
    pieces.append(text[start:])
    every = [Place(kind, index) for kind, count in _counted(images, videos) for index in range(count)]
    return [*(place for place in every if place not in placed), *_merge_strings(pieces)]


def split_at_images(text: str, images: int) -> list[str | int]:
    """Split ``text`` into strings and image indices as ``split_at_media`` does for a row without videos."""
    return [piece if isinstance(piece, str) else piece.index for piece in split_at_media(text, images)]


def _counted(images: int, videos: int) -> tuple[tuple[Literal["image", "video"], int], ...]:
    return (("image", images), ("video", videos))


def _kind_and_digits(match: re.Match[str]) -> tuple[Literal["image", "video"], str]:
    return ("image" if match[1] == "image" else "video"), match[2]


def _merge_strings(pieces: list[str | Place]) -> list[str | Place]:
    joined: list[str | Place] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined


def _count(number: int, kind: str) -> str:
    return {0: f"no {kind}", 1: f"1 {kind}"}.get(number, f"{number} {kind}s")


@runtime_checkable
class Sized(Protocol):
    """Loader of an image that knows its size without decoding it."""

    def size(self) -> tuple[int, int]:
        """Return (width, height). Raises ``DataError``."""
        ...


@dataclass(frozen=True)
class ImageRef:
    """Reference to an image; holds no pixels.

    Attributes:
        origin: name in messages: a path, ``bytes (12,345)``, ``drawn: clock #7``.
        load: opens the image afresh on every call, so that no pixels stay in memory between uses.
    """

    origin: str
    load: Callable[[], Image.Image]

    def open(self) -> Image.Image:
        """Return the decoded image in RGB. Raises ``DataError`` if it cannot be decoded."""
        image = self.load()
        return image if image.mode == "RGB" else image.convert("RGB")

    def size(self) -> tuple[int, int]:
        """Return (width, height), from the header if there is one, else by opening. Raises ``DataError``."""
        return self.load.size() if isinstance(self.load, Sized) else self.open().size


@dataclass(frozen=True)
class Example:
    """A question about images with a verifiable answer.

    Attributes:
        id: unique within its source.
        question: text; ``<image>`` or ``<image1>`` marks the position of an image, else images come first.
        images: none, one or several.
        answer: the gold answer.
        solution: a worked solution for supervised fine-tuning, or None.
        choices: texts of the options of a multiple-choice question, in order A, B, …; empty otherwise.
        source: data set and row that it comes from.
        meta: the row's other columns (subject, level, …).
        system: the row's own system turn, or None.
        videos: none, one or several; ``<video>`` marks their positions as ``<image>`` does for images.
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageRef, ...] = ()
    solution: str | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    videos: tuple[VideoRef, ...] = ()


def fill_template(template: str, example: Example) -> str:
    """Fill question and choices into the prompt template; choices as ``(A) …`` lines.

    A template without ``{choices}`` gets them after the question, which could not be answered without them.
    """
    if example.choices and "{choices}" not in template:
        template = template.replace("{question}", "{question}\n{choices}")
    choices = "\n".join(f"({chr(ord('A') + index)}) {text}" for index, text in enumerate(example.choices))
    values = {"{question}": example.question, "{choices}": choices}
    # In one pass, so that placeholders inside the values are not replaced.
    return re.sub(r"\{question\}|\{choices\}", lambda match: values[match[0]], template).strip()
