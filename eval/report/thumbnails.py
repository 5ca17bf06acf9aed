"""Small copies of the questions' images, each once, within a byte budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from PIL import Image

from data import DataError, Example, ImageRef, image_ref

# What the images of a question of one benchmark may be given as.
Picture = Example | ImageRef | Image.Image
Pictures = Callable[[str], Picture | None] | Mapping[str, Callable[[str], Picture | None]]

LARGEST_SIDE = 384
BYTE_BUDGET = 25_000_000
_QUALITY = 80


class Thumbnails:
    """The page's images: kept as data URLs, named by their place in ``urls``.

    Args:
        budget: characters of all data URLs; when it is spent no further image is opened.

    Attributes:
        urls: what the page stores.
    """

    def __init__(self, budget: int = BYTE_BUDGET) -> None:
        self.urls: list[str] = []
        self._left = budget
        self._places: dict[str, int | None] = {}
        self._by_url: dict[str, int] = {}

    def add(self, key: str, ref: ImageRef | None) -> int | None:
        """Return the place of an image; None if there is none, it is broken or finds no room.

        Args:
            key: images of the same key are the same; it is opened once.
            ref: how to open it.
        """
        if key not in self._places:
            self._places[key] = self._store(ref) if ref and self._left > 0 else None
        return self._places[key]

    def _store(self, ref: ImageRef) -> int | None:
        url = _data_url(ref)
        if url is None:
            return None
        if url not in self._by_url:
            if len(url) > self._left:
                self._left = 0
                return None
            self._left -= len(url)
            self._by_url[url] = len(self.urls)
            self.urls.append(url)
        return self._by_url[url]


def references(picture: Picture | None) -> tuple[ImageRef, ...]:
    """Return what can be opened of an example, a reference or a picture in memory."""
    if picture is None:
        return ()
    if isinstance(picture, Example):
        return picture.images
    return (picture,) if isinstance(picture, ImageRef) else (image_ref(picture),)


def first_file(origin: str, folders: Iterable[Path]) -> ImageRef | None:
    """Return the image file of that name, in the folders if it is relative; None if there is none."""
    for folder in folders:
        try:
            if (folder / origin).is_file():
                return image_ref((folder / origin).resolve())
        except (OSError, ValueError, DataError):  # a text that no file can be called
            continue
    return None


def _data_url(ref: ImageRef) -> str | None:
    try:
        image = ref.open()
    except (DataError, OSError):
        return None
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
