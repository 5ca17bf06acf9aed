"""Lines and boxes drawn on an image, in the place and colour that were asked for."""

from __future__ import annotations

import numpy as np

from data import Example
from mm_cpgd.environments import Context, View
from mm_cpgd.environments.tools import TOOLS


def drawn(name: str, example: Example, pixels: int = 401_408, **arguments):
    tool = TOOLS[name]
    (ref,) = tool(tool.checked(arguments), Context(example, example.images, View("absolute", pixels)))
    return ref.open()


def test_a_line_joins_its_ends(example: Example) -> None:
    image = drawn("draw_line", example, start=[10, 20], end=[60, 20], colour="blue")
    blue = np.argwhere((np.asarray(image) == (0, 0, 255)).all(-1))
    assert image.size == (200, 100)
    assert (blue[:, 1].min(), blue[:, 1].max()) == (10, 60)
    assert set(blue[:, 0]) <= {19, 20, 21}


def test_a_box_has_its_corners_and_is_empty(example: Example) -> None:
    image = drawn("draw_box", example, box=[10, 20, 60, 40], colour="green")
    green = np.argwhere((np.asarray(image) == (0, 128, 0)).all(-1))
    assert green.min(0).tolist() == [20, 10]
    assert green.max(0).tolist() == [40, 60]
    assert image.getpixel((30, 30)) == (255, 255, 255)


def test_the_drawing_scales_with_the_image(example: Example) -> None:
    # At 10,000 pixels the picture is 141 × 70, 0.705 of its size.
    image = drawn("draw_box", example, 10_000, box=[100, 50, 150, 75], colour="black")
    black = np.argwhere((np.asarray(image) == 0).all(-1))
    assert np.allclose(black.min(0), [35, 70.5], atol=1)
    assert np.allclose(black.max(0), [52.5, 105.75], atol=1)


def test_the_source_is_not_drawn_on(example: Example) -> None:
    before = example.images[0].open().tobytes()
    drawn("draw_line", example, start=[0, 0], end=[200, 100])
    assert example.images[0].open().tobytes() == before
