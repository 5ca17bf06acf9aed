"""Images of the page: those of each question, as thumbnails within a byte budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data import DataError, Example, ImageRef, image_ref
from data.videos.preview import pictures_of
from eval.report.sheets import Sheet


class PageImages:
    """Thumbnails of all questions; a call with a sheet and a row returns what the page stores for the row.

    Args:
        sheets: all results.
        lookup: returns a question's images by its id, or such functions by benchmark; None for files only.
        budget: total size of the thumbnails, in bytes.
    """

    def __init__(self, sheets: Sequence[Sheet], lookup: ImageLookup | None, budget: int) -> None:
        self._lookup = lookup
        self._thumbnails = Thumbnails(budget)
        # Wrong responses first: their images matter most if the budget does not suffice for all.
        for right in (False, True):
            for sheet in sheets:
                for place, rows in enumerate(sheet.rows):
                    for row in rows:
                        if (row["score"] == 1) is right:
                            self(sheet, place, row)

    @property
    def urls(self) -> list[str]:
        """Thumbnails as data URLs."""
        return self._thumbnails.urls

    def __call__(self, sheet: Sheet, place: int, row: Mapping[str, Any]) -> list[int | str]:
        """Return the index in ``urls`` of each image of a row, or its origin.

        Args:
            sheet: the row's sheet.
            place: index of the row's result in the sheet.
            row: a row of ``rows.jsonl``.
        """
        # A control uses other images than the question's own; only its rows state which.
        given = () if sheet.summaries[place].get("control") else self._given(sheet.benchmark, row["id"])
        if given:
            key = f"{sheet.benchmark}\n{row['id']}\n"
            return [self._stored(f"{key}{at}", ref, ref.origin) for at, ref in enumerate(given)]
        return [self._stored(origin, _found(origin, sheet), origin) for origin in row["images"]]

    def _stored(self, key: str, ref: ImageRef | None, origin: str) -> int | str:
        place = self._thumbnails.add(key, ref)
        return origin if place is None else place

    def _given(self, benchmark: str, name: str) -> tuple[ImageRef, ...]:
        lookup = self._lookup
        if isinstance(lookup, Mapping):
            lookup = lookup.get(benchmark)
        return references(lookup(name)) if lookup else ()


def _found(origin: str, sheet: Sheet) -> ImageRef | None:
    """Return the file that an origin names: as a path itself, beside the data, or in a result's folder."""
    folders = [Path(), *(place for summary in sheet.summaries for place in _data_folders(summary))]
    return first_file(origin, [*folders, *sheet.folders])


def _data_folders(summary: Mapping[str, Any]) -> list[Path]:
    data = summary["settings"].get("data")
    path = data.get("path") if isinstance(data, Mapping) else data
    if not isinstance(path, str):
        return []
    place = Path(path).expanduser()
    return [place, place.parent]


# Accepted forms of the images of one question.
Images = Example | ImageRef | Image.Image
ImageLookup = Callable[[str], Images | None] | Mapping[str, Callable[[str], Images | None]]

LARGEST_SIDE = 384
BYTE_BUDGET = 25_000_000
_QUALITY = 80


class Thumbnails:
    """Thumbnails of the page as data URLs, identified by their index in ``urls``.

    Args:
        budget: characters of all data URLs; once it is exceeded no further image is opened.

    Attributes:
        urls: the data URLs that the page stores.
    """

    def __init__(self, budget: int = BYTE_BUDGET) -> None:
        self.urls: list[str] = []
        self._left = budget
        self._places: dict[str, int | None] = {}
        self._by_url: dict[str, int] = {}

    def add(self, key: str, ref: ImageRef | None) -> int | None:
        """Return the index of an image; None if there is none, it is broken or exceeds the budget.

        Args:
            key: identifies the image, which is opened once.
            ref: opens it.
        """
        if key not in self._places:
            self._places[key] = self._store(ref) if ref and self._left > 0 else None
        return self._places[key]

    def _store(self, ref: ImageRef) -> int | None:
        url = _thumbnail_url(ref)
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


def references(images: Images | None) -> tuple[ImageRef, ...]:
    """Return the image references of an example, a reference or an image in memory."""
    if images is None:
        return ()
    if isinstance(images, Example):
        return pictures_of(images)
    return (images,) if isinstance(images, ImageRef) else (image_ref(images),)


def first_file(origin: str, folders: Iterable[Path]) -> ImageRef | None:
    """Return the image file of that name, in the folders if it is relative; None if there is none."""
    for folder in folders:
        try:
            if (folder / origin).is_file():
                return image_ref((folder / origin).resolve())
        except (OSError, ValueError, DataError):  # not a valid file name
            continue
    return None


def _thumbnail_url(ref: ImageRef) -> str | None:
    try:
        image = ref.open()
    except (DataError, OSError):
        return None
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
