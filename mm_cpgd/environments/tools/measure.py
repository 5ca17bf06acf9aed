"""Tools that measure an image: a distance in pixels, the colour at a point."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from annotated_types import Interval

from data.example import ImageRef
from data.images import image_size
from mm_cpgd.environments.coordinates import Point, View

# Of CSS, those that people name.
COLOURS = {
    "black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "red": (255, 0, 0),
    "green": (0, 128, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0),
    "cyan": (0, 255, 255), "magenta": (255, 0, 255), "orange": (255, 165, 0), "purple": (128, 0, 128),
    "brown": (139, 69, 19), "pink": (255, 192, 203), "navy": (0, 0, 128), "olive": (128, 128, 0),
}  # fmt: skip


def measure_distance(image: ImageRef, start: Point, end: Point, view: View) -> str:
    """Measure the straight distance between two points of an image, in pixels.

    Args:
        image: number of the image, counted from 1.
        start: one point, as [x, y].
        end: the other point, as [x, y].
        view: given by the environment.
    """
    (x1, y1), (x2, y2) = view.point(start, image), view.point(end, image)
    width, height = image_size(image)
    return (
        f"{math.hypot(x2 - x1, y2 - y1):.5g} pixels ({x2 - x1:+.5g} across, {y2 - y1:+.5g} down) "
        f"in an image of {width} × {height} pixels"
    )


def read_colour(
    image: ImageRef, point: Point, view: View, radius: Annotated[int, Interval(ge=0, le=50)] = 1
) -> str:
    """Read the mean colour of an image around a point.

    Args:
        image: number of the image, counted from 1.
        point: as [x, y].
        radius: half the side of the square that is averaged, in pixels.
        view: given by the environment.
    """
    x, y = view.point(point, image)
    picture = image.open()
    column, row = min(int(x), picture.width - 1), min(int(y), picture.height - 1)
    square = picture.crop(
        (
            max(0, column - radius),
            max(0, row - radius),
            min(picture.width, column + radius + 1),
            min(picture.height, row + radius + 1),
        )
    )
    red, green, blue = (round(float(one)) for one in np.asarray(square).reshape(-1, 3).mean(axis=0))
    return f"rgb({red}, {green}, {blue}), nearest to {nearest_colour((red, green, blue))}"


def nearest_colour(rgb: tuple[int, int, int]) -> str:
    """Return the name in ``COLOURS`` of the least Euclidean distance in RGB."""
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], rgb))
