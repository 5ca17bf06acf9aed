"""Example: one row with its images as references, the ``<image>`` markers of its text, and ``DataError``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image


class DataError(ValueError):
    """Data that cannot be used; the message names the problem, its place and the remedy."""


MARKER = re.compile(r"<image(\d*)>")


def split_at_images(text: str, images: int) -> list[str | int]:
    """Split ``text`` into strings and image indices (from 0), each of the ``images`` exactly once.

    Images without a marker come first, in order. A marker that names an image a second time is a mention of
    that image, not its position: it is replaced by the words ``image 1``.

    Raises:
        DataError: a marker without an image.
    """
    numbered = {int(digits) - 1 for digits in MARKER.findall(text) if digits}
    unnamed = iter([index for index in range(images) if index not in numbered])
    placed: list[int] = []
    pieces: list[str | int] = []
    start = 0
    for match in MARKER.finditer(text):
        index = int(match[1]) - 1 if match[1] else next(unnamed, -1)
        if not 0 <= index < images:
            raise DataError(f"the text has {match[0]}, but the row has {_image_count(images)}")
        pieces += [text[start : match.start()], f"image {index + 1}" if index in placed else index]
        placed.append(index)
        start = match.end()
    pieces.append(text[start:])
    return [*(index for index in range(images) if index not in placed), *_merge_strings(pieces)]


def _merge_strings(pieces: list[str | int]) -> list[str | int]:
    joined: list[str | int] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined


def _image_count(images: int) -> str:
    return {0: "no image", 1: "1 image"}.get(images, f"{images} images")


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
