"""Image controls: the same questions with blank, shuffled or no images, and the drop in accuracy."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from data import DataError, Example, ImageRef
from data.images import image_size
from eval.comparison import compare
from eval.generate.generate import image_digest
from eval.generate.questions import without_images
from eval.results import EvalResult
from mm_cpgd.errors import UserError
from rewards.messages import nearest

GREY = (128, 128, 128)
TEXT_ONLY = "text-only"


@dataclass(frozen=True)
class _Blank:
    """Loader of a grey image of the size of ``original``."""

    original: ImageRef

    def __call__(self) -> Image.Image:
        return Image.new("RGB", image_size(self.original), GREY)


def blank(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Replace every image by a grey one of the same size; rows without an image are dropped."""
    return [
        replace(
            one, images=tuple(ImageRef(f"grey for {image.origin}", _Blank(image)) for image in one.images)
        )
        for one in examples
        if one.images
    ]


def shuffled(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Give every row the images of another row; rows without an image are dropped.

    A row never gets its own images, even if several rows have the same ones. Each row's images go to one
    other row; if that one needs more they are repeated, if fewer the first ones are taken. A row whose own
    images cannot be read keeps them: no response can be generated for it anyway.

    Args:
        examples: rows.
        seed: seed of the order.

    Raises:
        DataError: more than half of the rows have the same images.
    """
    by_images: dict[tuple[str, ...], list[Example]] = defaultdict(list)
    with_images = [one for one in examples if one.images]
    for one in with_images:
        try:
            by_images[tuple(image_digest(image) for image in one.images)].append(one)
        except DataError:
            continue
    donors = _derangement(list(by_images.values()), random.Random(seed))
    return [replace(one, images=_take(donors.get(one.id, one), len(one.images))) for one in with_images]


def _derangement(groups: list[list[Example]], numbers: random.Random) -> dict[str, Example]:
    """Map each row's id to a row of another group; each row is used once."""
    numbers.shuffle(groups)
    order = [one for group in groups for one in numbers.sample(group, len(group))]
    largest = max(map(len, groups), default=0)
    if 2 * largest > len(order):
        raise DataError(
            f"{largest:,} of {len(order):,} rows have the same image, so they cannot all get another one; "
            "omit --control shuffled, or raise --limit"
        )
    # Groups are contiguous and none is longer than the shift or than the rest of the circle, so every row
    # is mapped to another group.
    return {one.id: order[(place + largest) % len(order)] for place, one in enumerate(order)}


def _take(donor: Example, count: int) -> tuple[ImageRef, ...]:
    return tuple(donor.images[index % len(donor.images)] for index in range(count))


def text_only(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Leave out all images; rows without an image are dropped."""
    return [without_images(one) for one in examples if one.images]


CONTROLS: Mapping[str, Callable[[Sequence[Example], int], list[Example]]] = {
    "blank": blank,
    "shuffled": shuffled,
    TEXT_ONLY: text_only,
}


def checked_controls(names: Sequence[str]) -> list[str]:
    """Return the names without duplicates. Raises ``UserError`` if one is unknown."""
    for name in names:
        if name not in CONTROLS:
            raise UserError(f"there is no control {name!r}: {nearest(name, CONTROLS)}")
    return list(dict.fromkeys(names))


def nothing_to_lose(drop: Mapping[str, Any]) -> str | None:
    """Return why a drop says nothing about the images, None if it does say something.

    Args:
        drop: result of ``accuracy_drop``.
    """
    if not drop["n"]:
        return "no question has a score with the original and the replaced images, so the drop is unknown"
    if drop["accuracy"] == 0:
        return "no response is right with the original images, so no accuracy could be lost without them"
    return None


def accuracy_drop(original: EvalResult, control: EvalResult, protocol: str) -> dict[str, Any]:
    """Return the drop in accuracy by one protocol, over the questions with a score in both results.

    Returns:
        ``n`` pairs of responses, ``accuracy`` with the original images, ``control`` with the replaced ones,
        ``drop`` the first minus the second, ``interval``, its 95 % paired interval, and ``p``, two-sided, of
        no drop; all but ``n`` are None if no pair has scores.
    """
    try:
        found = compare(control, original, protocol).overall
    except UserError:  # no question has a score in both, for instance because a judge never replied
        return {"n": 0, **dict.fromkeys(("accuracy", "control", "drop", "interval", "p"))}
    return {
        "n": found.total,
        "accuracy": found.b,
        "control": found.a,
        "drop": found.difference,
        "interval": list(found.interval),
        "p": found.p,
    }
