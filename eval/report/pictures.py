"""Which picture belongs to which question: given by the caller, or a file that the result names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data import ImageRef
from eval.report.sheets import Sheet
from eval.report.thumbnails import Pictures, Thumbnails, first_file, references


class PageImages:
    """The thumbnails of all questions; called with a sheet and a row, says what the page stores for it.

    Args:
        sheets: all results.
        pictures: a question's pictures by its id, or such functions by benchmark; None: files alone.
        budget: of the thumbnails, in bytes.
    """

    def __init__(self, sheets: Sequence[Sheet], pictures: Pictures | None, budget: int) -> None:
        self._pictures = pictures
        self._thumbnails = Thumbnails(budget)
        # Wrong answers first: where the budget ends, it is their pictures that a person wants to see.
        for right in (False, True):
            for sheet in sheets:
                for place, rows in enumerate(sheet.rows):
                    for row in rows:
                        if (row["score"] == 1) is right:
                            self(sheet, place, row)

    @property
    def urls(self) -> list[str]:
        """The thumbnails as data URLs."""
        return self._thumbnails.urls

    def __call__(self, sheet: Sheet, place: int, row: Mapping[str, Any]) -> list[int | str]:
        """Return of each image of a row its place among ``urls``, or its origin.

        Args:
            sheet: of the row.
            place: of the row's result in the sheet.
            row: of ``rows.jsonl``.
        """
        # A control asked with other images than the question's own, which are named in its rows alone.
        given = () if sheet.summaries[place].get("control") else self._given(sheet.benchmark, row["id"])
        if given:
            key = f"{sheet.benchmark}\n{row['id']}\n"
            return [self._stored(f"{key}{at}", ref, ref.origin) for at, ref in enumerate(given)]
        return [self._stored(origin, _found(origin, sheet), origin) for origin in row["images"]]

    def _stored(self, key: str, ref: ImageRef | None, origin: str) -> int | str:
        place = self._thumbnails.add(key, ref)
        return origin if place is None else place

    def _given(self, benchmark: str, name: str) -> tuple[ImageRef, ...]:
        pictures = self._pictures
        if isinstance(pictures, Mapping):
            pictures = pictures.get(benchmark)
        return references(pictures(name)) if pictures else ()


def _found(origin: str, sheet: Sheet) -> ImageRef | None:
    """Return the file that an origin names: as it stands, beside the data, or in a result's folder."""
    folders = [Path(), *(place for summary in sheet.summaries for place in _data_folders(summary))]
    return first_file(origin, [*folders, *sheet.folders])


def _data_folders(summary: Mapping[str, Any]) -> list[Path]:
    data = summary["settings"].get("data")
    path = data.get("path") if isinstance(data, Mapping) else data
    if not isinstance(path, str):
        return []
    place = Path(path).expanduser()
    return [place, place.parent]
