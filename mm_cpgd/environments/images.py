"""Images that tools make: edits of an image of the conversation, computed when opened; bounds on their size.

An edited image holds no pixels: it opens its source and edits it afresh. So a thousand conversations with
crops cost no memory before their images are encoded.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from data.example import ImageRef
from data.images import MAX_PIXELS, image_ref, image_size, to_rgb

# Pixels. Image processors refuse sides below one patch of 28 pixels.
MIN_SIDE = 28
# The smallest limit: an image of the least side is then at most ten times as long.
LEAST_PIXELS = 10 * MIN_SIDE * MIN_SIDE
# 512 tokens of Qwen2.5-VL.
DEFAULT_PIXELS = 512 * 28 * 28
# Left, top, right, bottom.
PixelBox = tuple[int, int, int, int]
FractionBox = tuple[float, float, float, float]


class Edit(Protocol):
    """Function of an image; a dataclass, so that it can be pickled and compared."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a new image."""
        ...


@dataclass(frozen=True)
class EditedImage:
    """Loader of an image that is made from another one.

    Attributes:
        source: the image that is edited.
        edit: what is done with it.
        shape: (width, height) that the result is resized to.
    """

    source: ImageRef
    edit: Edit
    shape: tuple[int, int]

    def __call__(self) -> Image.Image:
        """Open the source and return the edited image. Raises ``DataError``."""
        image = self.edit(self.source.open())
        if image.size == self.shape:
            return image
        return image.resize(self.shape, Image.Resampling.BICUBIC)

    def size(self) -> tuple[int, int]:
        """Return (width, height) without opening anything."""
        return self.shape


@dataclass(frozen=True)
class Crop:
    """The part of an image inside a box, in pixels."""

    box: PixelBox

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the part."""
        return image.crop(self.box)


def edited(source: ImageRef, edit: Edit, shape: tuple[int, int], what: str) -> ImageRef:
    """Return the reference to an edited image; opens nothing. ``what``: its name in messages."""
    return ImageRef(f"{what} of {source.origin}"[:200], EditedImage(source, edit, shape))


def fit(width: float, height: float, max_pixels: int, *, enlarge: bool) -> tuple[int, int]:
    """Return the size (width, height) of an image scaled to at most ``max_pixels``.

    The proportions are kept, except of images so narrow that a side would be less than ``MIN_SIDE``.

    Args:
        width: of the image, more than 0.
        height: of the image, more than 0.
        max_pixels: at least ``LEAST_PIXELS``.
        enlarge: whether a smaller image is enlarged to that; it is always enlarged to the least side.
    """
    scale = math.sqrt(max_pixels / (width * height))
    if not enlarge:
        scale = min(scale, max(1.0, MIN_SIDE / min(width, height)))
    sides = [max(MIN_SIDE, math.floor(side * scale)) for side in (width, height)]
    if sides[0] * sides[1] > max_pixels:
        longer = sides.index(max(sides))
        sides[longer] = max_pixels // sides[1 - longer]
    return sides[0], sides[1]


def region_of(image: ImageRef) -> tuple[ImageRef, FractionBox] | None:
    """Return which part of which original image a crop shows, in fractions of its width and height.

    A crop of a crop is a part of the original. None: the image is rotated or otherwise edited.
    """
    load = image.load
    if not isinstance(load, EditedImage):
        return image, (0.0, 0.0, 1.0, 1.0)
    outer = region_of(load.source)
    if outer is None or not isinstance(load.edit, Crop):
        return None
    original, (left, top, right, bottom) = outer
    width, height = image_size(load.source)
    x1, y1, x2, y2 = load.edit.box
    across, down = (right - left) / width, (bottom - top) / height
    return original, (left + x1 * across, top + y1 * down, left + x2 * across, top + y2 * down)


def stored(image: Image.Image, max_pixels: int) -> ImageRef:
    """Return a reference to an image that a tool made, shrunk to ``max_pixels`` and compressed without loss.

    Raises:
        ValueError: the image is empty, or has more pixels than any image may have.
    """
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"an image of {width} × {height} pixels; 1 to {MAX_PIXELS:,} are allowed")
    shape = fit(width, height, max_pixels, enlarge=False)
    rgb = to_rgb(image)
    buffer = io.BytesIO()
    (rgb if rgb.size == shape else rgb.resize(shape)).save(buffer, "PNG", compress_level=1)
    return image_ref(buffer.getvalue())
