"""Controls: the same questions with blank, shuffled or no images and videos, and the drop in accuracy."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from PIL import Image

from data import DataError, Example, ImageRef, VideoRef
from data.images import image_size
from data.videos.timeline import Timeline, VideoSource
from eval.comparison import compare
from eval.generate.generate import image_digest, video_digest
from eval.generate.questions import without_images
from eval.results import EvalResult
from mm_cpgd.errors import UserError
from rewards.messages import nearest

GREY = (128, 128, 128)
TEXT_ONLY = "text-only"
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Blank:
    """Loader of a grey image of the size of ``original``."""

    original: ImageRef

    def __call__(self) -> Image.Image:
        return Image.new("RGB", image_size(self.original), GREY)


@dataclass(frozen=True)
class _BlankVideo:
    """Source of grey frames, as many and as large as those of ``original``."""

    original: VideoRef

    def timeline(self) -> Timeline:
        return self.original.timeline()

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        timeline = self.timeline()
        yield from (Image.new("RGB", (timeline.width, timeline.height), GREY) for _ in indices)


@dataclass(frozen=True)
class _Reversed(_BlankVideo):
    """Source of the frames of ``original`` from the last to the first."""

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        last = len(self.timeline()) - 1
        yield from reversed(list(self.original.read([last - index for index in reversed(indices)])))


@dataclass(frozen=True)
class _Still(_BlankVideo):
    """Source of the middle frame of ``original`` in place of all."""

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        middle = next(self.original.read([len(self.timeline()) // 2]))
        yield from [middle] * len(indices)


def blank(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Replace images and frames of videos by grey ones of the same size; rows without any are dropped."""
    return [
        replace(
            one,
            images=tuple(ImageRef(f"grey for {image.origin}", _Blank(image)) for image in one.images),
            videos=tuple(VideoRef(f"grey for {video.origin}", _BlankVideo(video)) for video in one.videos),
        )
        for one in examples
        if one.images or one.videos
    ]


def backwards(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Play every video from its end to its beginning; rows without a video are dropped."""
    return [_with_videos(one, "reversed", _Reversed) for one in examples if one.videos]


def still(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Show the middle frame of every video all the time; rows without a video are dropped."""
    return [_with_videos(one, "middle frame of", _Still) for one in examples if one.videos]


def _with_videos(example: Example, name: str, source: Callable[[VideoRef], VideoSource]) -> Example:
    videos = tuple(VideoRef(f"{name} {video.origin}", source(video)) for video in example.videos)
    return replace(example, videos=videos)


def shuffled(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Give every row the images and videos of another row; rows without any are dropped.

    A row never gets its own images, even if several rows have the same ones. Each row's images go to one
    other row; if that one needs more they are repeated, if fewer the first ones are taken. A row whose own
    images cannot be read keeps them: no response can be generated for it anyway. Rows with images alone, with
    videos alone and with both are shuffled among themselves.

    Args:
        examples: rows.
        seed: seed of the order.

    Raises:
        DataError: more than half of the rows have the same images.
    """
    shown = [one for one in examples if one.images or one.videos]
    donors: dict[str, Example] = {}
    for kind in sorted({_kind(one) for one in shown}):
        by_content: dict[tuple[str, ...], list[Example]] = defaultdict(list)
        for one in shown:
            if _kind(one) != kind:
                continue
            try:
                digests = [*map(image_digest, one.images), *map(video_digest, one.videos)]
                by_content[tuple(digests)].append(one)
            except DataError:
                continue
        donors |= _derangement(list(by_content.values()), random.Random(seed))
    return [_in_place(one, donors.get(one.id, one)) for one in shown]


def _kind(example: Example) -> tuple[bool, bool]:
    return bool(example.images), bool(example.videos)


def _in_place(example: Example, donor: Example) -> Example:
    images = _take(donor.images, len(example.images))
    return replace(example, images=images, videos=_take(donor.videos, len(example.videos)))


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


def _take(given: tuple[_T, ...], count: int) -> tuple[_T, ...]:
    return tuple(given[index % len(given)] for index in range(count))


def text_only(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Leave out all images and videos; rows without any are dropped."""
    return [without_images(one) for one in examples if one.images or one.videos]


CONTROLS: Mapping[str, Callable[[Sequence[Example], int], list[Example]]] = {
    "blank": blank,
    "shuffled": shuffled,
    TEXT_ONLY: text_only,
    "reversed": backwards,
    "still": still,
}
# Those that need a video.
OF_VIDEOS = ("reversed", "still")


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
