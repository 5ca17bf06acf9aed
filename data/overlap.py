"""Rows that occur in two sets: same question about the same images and videos."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence

from data.example import DataError, Example, ImageRef
from data.images import EncodedImage
from data.videos.reference import video_content
from data.videos.timeline import VideoRef


def shared_rows(train: Sequence[Example], held_out: Sequence[Example]) -> list[Example]:
    """Return the held-out rows that are training rows: equal question and options, equal images.

    Images are compared by their encoded bytes, those of rows whose question occurs on both sides only; one
    file under two names is one image. An image that cannot be read equals none.
    """
    asked = {_text(example) for example in held_out} & {_text(example) for example in train}
    known = {key for example in train if _text(example) in asked if (key := _key(example))}
    return [example for example in held_out if _text(example) in asked and _key(example) in known]


def _text(example: Example) -> tuple[str, tuple[str, ...]]:
    return " ".join(example.question.split()), example.choices


def _key(example: Example) -> tuple[object, ...] | None:
    try:
        images = (_digest(image) for image in example.images)
        return (*_text(example), *images, *(_video_digest(video) for video in example.videos))
    except (DataError, OSError):
        return None


def _digest(image: ImageRef) -> bytes:
    if isinstance(image.load, EncodedImage):
        with image.load.stream() as stream:
            content = stream.read()
    else:
        try:
            content = pickle.dumps(image.load)  # what a drawn image is drawn from
        except Exception:
            content = image.open().tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def _video_digest(video: VideoRef) -> bytes:
    try:
        content = pickle.dumps(video_content(video))
    except (pickle.PicklingError, AttributeError, TypeError):  # frames that only this process can draw
        content = video.origin.encode()
    return hashlib.blake2b(content, digest_size=16).digest()
