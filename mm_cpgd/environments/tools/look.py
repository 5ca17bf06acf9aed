"""Tools that show an image again: a part of it enlarged, turned, or beside another part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from PIL import Image

from data.example import ImageRef
from data.images import image_size
from mm_cpgd.environments.coordinates import Box, ToolError, View
from mm_cpgd.environments.images import LEAST_PIXELS, Crop, edited, fit

# Pixels between two crops.
GAP = 8


def zoom(image: ImageRef, box: Box, view: View) -> ImageRef:
    """Show the part of an image inside a box, enlarged.

    Args:
        image: number of the image, counted from 1.
        box: the part, as [left, top, right, bottom].
        view: given by the environment.
    """
    return _crop(image, box, view, view.image_pixels)


def image_zoom_in_tool(
    bbox_2d: Box, images: Sequence[ImageRef], view: View, label: str | None = None
) -> ImageRef:
    """Zoom in on a part of the image, which is shown enlarged.

    Args:
        bbox_2d: the part, as [left, top, right, bottom].
        images: given by the environment; the first one is shown.
        view: given by the environment.
        label: what is seen there (optional).

    Raises:
        ToolError: the conversation has no image.

    Source:
        ``zoom`` under the name and with the arguments that DeepEyes (arXiv 2505.14362) and Chain-of-Focus
        (arXiv 2505.15436) publish: data sets of theirs describe this tool.
    """
    if not images:
        raise ToolError("there is no image to zoom in on")
    return _crop(images[0], bbox_2d, view, view.image_pixels)


def _crop(image: ImageRef, box: Box, view: View, max_pixels: int) -> ImageRef:
    left, top, right, bottom = pixels = view.box(box, image)
    shape = fit(right - left, bottom - top, max_pixels, enlarge=True)
    return edited(image, Crop(pixels), shape, f"part {list(pixels)}")


@dataclass(frozen=True)
class Rotation:
    """An image turned clockwise about its centre; the corners that this uncovers are white.

    Attributes:
        degrees: clockwise.
        shape: (width, height) to which the image is scaled before, so that no large one is turned.
    """

    degrees: float
    shape: tuple[int, int]

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the turned image, which has room for all of it."""
        scaled = image if image.size == self.shape else image.resize(self.shape, Image.Resampling.BICUBIC)
        return scaled.rotate(-self.degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


def rotate(image: ImageRef, degrees: Annotated[float, Interval(ge=-360, le=360)], view: View) -> ImageRef:
    """Show an image turned clockwise.

    Args:
        image: number of the image, counted from 1.
        degrees: the angle, such as 90.
        view: given by the environment.
    """
    shape = fit(*image_size(image), view.image_pixels, enlarge=False)
    sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    width = round(shape[0] * cosine + shape[1] * sine)
    height = round(shape[0] * sine + shape[1] * cosine)
    turned = fit(width, height, view.image_pixels, enlarge=False)
    return edited(image, Rotation(degrees, shape), turned, f"turn by {degrees:g}°")


@dataclass(frozen=True)
class SideBySide:
    """Loader of two images beside each other, the first on the left, on white."""

    left: ImageRef
    right: ImageRef
    max_pixels: int

    def _canvas(self) -> tuple[int, int]:
        (w1, h1), (w2, h2) = image_size(self.left), image_size(self.right)
        return w1 + GAP + w2, max(h1, h2)

    def size(self) -> tuple[int, int]:
        """Return (width, height) without opening anything."""
        return fit(*self._canvas(), self.max_pixels, enlarge=False)

    def __call__(self) -> Image.Image:
        """Open both and return them on one canvas. Raises ``DataError``."""
        canvas = Image.new("RGB", self._canvas(), "white")
        canvas.paste(self.left.open(), (0, 0))
        canvas.paste(self.right.open(), (canvas.width - image_size(self.right)[0], 0))
        return canvas if canvas.size == self.size() else canvas.resize(self.size(), Image.Resampling.BICUBIC)


def compare(image: ImageRef, box: Box, other_box: Box, view: View, other_image: ImageRef) -> ImageRef:
    """Show two parts of images beside each other, enlarged.

    Args:
        image: number of the image of the first part, counted from 1.
        box: the first part, as [left, top, right, bottom]; it is shown on the left.
        other_box: the second part, shown on the right.
        other_image: number of the image of the second part, counted from 1.
        view: given by the environment.
    """
    half = max(view.image_pixels // 2, LEAST_PIXELS)
    left, right = _crop(image, box, view, half), _crop(other_image, other_box, view, half)
    pair = SideBySide(left, right, view.image_pixels)
    return ImageRef(f"{left.origin} beside {right.origin}"[:200], pair)
