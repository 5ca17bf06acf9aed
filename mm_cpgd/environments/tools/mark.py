"""Tools that draw on an image: a line, a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from data.example import ImageRef
from data.images import image_size
from mm_cpgd.environments.coordinates import Box, Point, View
from mm_cpgd.environments.images import edited, fit

Colour = Literal["red", "green", "blue", "yellow", "black", "white"]


@dataclass(frozen=True)
class Drawing:
    """A line or a box on an image.

    Attributes:
        kind: "line" or "box".
        corners: (x1, y1, x2, y2) in pixels of the image before it is scaled.
        colour: of the pen.
        shape: (width, height) to which the image is scaled first, so that the pen's width is the same in all.
    """

    kind: Literal["line", "box"]
    corners: tuple[float, float, float, float]
    colour: str
    shape: tuple[int, int]

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a copy with the drawing."""
        across, down = self.shape[0] / image.width, self.shape[1] / image.height
        drawn = (
            image.resize(self.shape, Image.Resampling.BICUBIC) if image.size != self.shape else image.copy()
        )
        x1, y1, x2, y2 = self.corners
        place = (x1 * across, y1 * down, x2 * across, y2 * down)
        pen, width = ImageDraw.Draw(drawn), max(2, min(self.shape) // 150)
        if self.kind == "line":
            pen.line(place, fill=self.colour, width=width)
        else:
            pen.rectangle(place, outline=self.colour, width=width)
        return drawn


def draw_line(image: ImageRef, start: Point, end: Point, view: View, colour: Colour = "red") -> ImageRef:
    """Draw a line on an image and show it.

    Args:
        image: number of the image, counted from 1.
        start: one end, as [x, y].
        end: the other end, as [x, y].
        colour: of the line.
        view: given by the environment.
    """
    corners = (*view.point(start, image), *view.point(end, image))
    return _drawn(image, "line", corners, colour, view)


def draw_box(image: ImageRef, box: Box, view: View, colour: Colour = "red") -> ImageRef:
    """Draw a box on an image and show it.

    Args:
        image: number of the image, counted from 1.
        box: as [left, top, right, bottom].
        colour: of the lines.
        view: given by the environment.
    """
    return _drawn(image, "box", view.box(box, image), colour, view)


def _drawn(
    image: ImageRef,
    kind: Literal["line", "box"],
    corners: tuple[float, float, float, float],
    colour: str,
    view: View,
) -> ImageRef:
    shape = fit(*image_size(image), view.image_pixels, enlarge=False)
    return edited(image, Drawing(kind, corners, colour, shape), shape, f"{colour} {kind} on a copy")
