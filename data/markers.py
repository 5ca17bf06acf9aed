"""``<image>`` and ``<image1>``: where in a text an image belongs.

``<image2>`` is the second image of the row; a plain ``<image>`` is the next one that has no marker yet.
"""

from __future__ import annotations

import re

from data.errors import DataError

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
