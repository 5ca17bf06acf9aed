"""Coordinates that the model gives, and their conversion to pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Len

from data.example import ImageRef
from data.images import image_size
from mm_cpgd.environments.images import DEFAULT_PIXELS, LEAST_PIXELS, PixelBox
from rewards.rules.grounding import resized

# As in the rule "boxes".
Coordinates = Literal["absolute", "fraction", "thousandths", "resized"]
# In the model's coordinates.
Box = Annotated[list[float], Len(4, 4)]
Point = Annotated[list[float], Len(2, 2)]
_MEANING = {
    "absolute": "pixels of the image",
    "fraction": "fractions of the image's width and height, from 0 to 1",
    "thousandths": "thousandths of the image's width and height, from 0 to 1000",
    "resized": "pixels of the image as you see it",
}


class ToolError(ValueError):
    """Arguments that a tool cannot use; the message is the model's reply."""


@dataclass(frozen=True)
class View:
    """How the model gives coordinates, and how large the images are that it gets.

    Attributes:
        coordinates: "thousandths" (0 to 1000, Qwen3-VL), "fraction" (0 to 1), "absolute" pixels of the image,
            or "resized" pixels of the image as Qwen's processors pass it to the model (Qwen2.5-VL).
        image_pixels: largest number of pixels of an image that a tool returns; crops are enlarged to it.
        factor: of "resized": the sides of a resized image are multiples of it.
        min_pixels: of "resized": least number of pixels of a resized image.
        max_pixels: of "resized": greatest number of pixels of a resized image.
    """

    coordinates: Coordinates = "thousandths"
    image_pixels: Annotated[int, Ge(LEAST_PIXELS)] = DEFAULT_PIXELS
    factor: Annotated[int, Ge(1)] = 28
    min_pixels: Annotated[int, Ge(1)] = 3_136
    max_pixels: Annotated[int, Ge(1)] = 12_845_056

    @property
    def meaning(self) -> str:
        """Sentence for the model."""
        return f"Coordinates are {_MEANING[self.coordinates]}, x to the right and y downwards."

    def _unit(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the pixels of the image per unit of x and of y."""
        width, height = size
        if self.coordinates == "absolute":
            return 1.0, 1.0
        if self.coordinates == "resized":
            seen = resized(width, height, self.factor, self.min_pixels, self.max_pixels)
            return width / seen[0], height / seen[1]
        whole = 1.0 if self.coordinates == "fraction" else 1000.0
        return width / whole, height / whole

    def point(self, point: Point, image: ImageRef) -> tuple[float, float]:
        """Return (x, y) in pixels of the image.

        Raises:
            ToolError: the point lies outside of the image.
        """
        size = image_size(image)
        across, down = self._unit(size)
        x, y = point[0] * across, point[1] * down
        if not (0 <= x <= size[0] and 0 <= y <= size[1]):
            raise ToolError(f"the point {shown(point)} lies outside of the image. {self.meaning}")
        return x, y

    def box(self, box: Box, image: ImageRef) -> PixelBox:
        """Return whole pixels (left, top, right, bottom) of the part of the box inside the image.

        Raises:
            ToolError: the corners are reversed, or the box lies outside of the image.
        """
        width, height = image_size(image)
        across, down = self._unit((width, height))
        left, top, right, bottom = box[0] * across, box[1] * down, box[2] * across, box[3] * down
        if right <= left or bottom <= top:
            raise ToolError(f"the box {shown(box)} is not [left, top, right, bottom]. {self.meaning}")
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise ToolError(f"the box {shown(box)} lies outside of the image. {self.meaning}")
        x1, x2 = _whole(left, right, width)
        y1, y2 = _whole(top, bottom, height)
        return x1, y1, x2, y2

    def tell(self, x: float, y: float, image: ImageRef) -> str:
        """Return pixels of the image as text in the model's coordinates."""
        across, down = self._unit(image_size(image))
        return shown((x / across, y / down))


def _whole(start: float, end: float, limit: int) -> tuple[int, int]:
    """Return the interval inside 0 … limit as whole pixels, at least one."""
    first = min(max(round(start), 0), limit - 1)
    return first, max(min(round(end), limit), first + 1)


def shown(numbers: list[float] | tuple[float, ...]) -> str:
    """Return numbers as ``[1, 2.5]``."""
    return "[" + ", ".join(f"{number:.6g}" for number in numbers) + "]"
