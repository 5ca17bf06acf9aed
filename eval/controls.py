"""Does the model look? The same questions with pictures that cannot help, and what accuracy that costs."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from data import DataError, Example, ImageRef, image_size
from eval.compare import compare
from eval.generate.generate import image_digest
from eval.results import Result
from mm_cpgd.errors import UserError
from rewards.registry import nearest

GREY = (128, 128, 128)


@dataclass(frozen=True)
class _Blank:
    """Opens as a grey picture of the size of ``original``."""

    original: ImageRef

    def __call__(self) -> Image.Image:
        return Image.new("RGB", image_size(self.original), GREY)


def blank(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Replace every image by grey of the same size; rows without an image are left out."""
    return [
        replace(
            one, images=tuple(ImageRef(f"grey for {image.origin}", _Blank(image)) for image in one.images)
        )
        for one in examples
        if one.images
    ]


def shuffled(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Give every row the images of another row; rows without an image are left out.

    A row never gets the images that it had, also where several rows show the same ones. Each row's images go
    to one other row; where that one needs more, they are repeated, and where fewer, the first ones are taken.
    A row whose own images cannot be read keeps them: it cannot be asked anyway.

    Args:
        examples: rows.
        seed: of the order.

    Raises:
        DataError: more than half of the rows show the same images.
    """
    alike: dict[tuple[str, ...], list[Example]] = defaultdict(list)
    with_images = [one for one in examples if one.images]
    for one in with_images:
        try:
            alike[tuple(image_digest(image) for image in one.images)].append(one)
        except DataError:
            continue
    donors = _derangement(list(alike.values()), random.Random(seed))
    return [replace(one, images=_as_many(donors.get(one.id, one), len(one.images))) for one in with_images]


def _derangement(groups: list[list[Example]], numbers: random.Random) -> dict[str, Example]:
    """Map each row's id to a row of another group, each row once."""
    numbers.shuffle(groups)
    order = [one for group in groups for one in numbers.sample(group, len(group))]
    largest = max(map(len, groups), default=0)
    if 2 * largest > len(order):
        raise DataError(
            f"{largest:,} of {len(order):,} rows show the same image, so they cannot all get another one; "
            "leave --control shuffled out, or raise --limit"
        )
    # Groups lie side by side and none is longer than this shift, nor than what is left of the circle.
    return {one.id: order[(place + largest) % len(order)] for place, one in enumerate(order)}


def _as_many(donor: Example, count: int) -> tuple[ImageRef, ...]:
    return tuple(donor.images[index % len(donor.images)] for index in range(count))


CONTROLS: Mapping[str, Callable[[Sequence[Example], int], list[Example]]] = {
    "blank": blank,
    "shuffled": shuffled,
}


def checked_controls(names: Sequence[str]) -> list[str]:
    """Return the names without repetition. Raises ``UserError`` if one is unknown."""
    for name in names:
        if name not in CONTROLS:
            raise UserError(f"there is no control {name!r}: {nearest(name, CONTROLS)}")
    return list(dict.fromkeys(names))


def drop(original: Result, control: Result, protocol: str) -> dict[str, Any]:
    """Return what the control costs on the questions that have a score in both, by one protocol.

    Returns:
        ``n`` pairs of answers, ``accuracy`` with their own images, ``control`` with the others, ``drop`` the
        first less the second, ``interval``, the 95 % paired interval of the drop, and ``p``, two-sided, of no
        drop; all but ``n`` are None where nothing could be scored.
    """
    try:
        found = compare(control, original, protocol).overall
    except UserError:  # none has a score in both, for instance a judge that never answered
        return {"n": 0, **dict.fromkeys(("accuracy", "control", "drop", "interval", "p"))}
    return {
        "n": found.total,
        "accuracy": found.b,
        "control": found.a,
        "drop": found.difference,
        "interval": list(found.interval),
        "p": found.p,
    }
