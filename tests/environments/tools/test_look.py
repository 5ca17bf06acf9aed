"""zoom, rotate and compare on a picture with a red square."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data import Example
from data.images import image_size
from mm_cpgd.environments import Context, View
from mm_cpgd.environments.coordinates import ToolError
from mm_cpgd.environments.tools import TOOLS

VIEW = View("absolute", image_pixels=20_000)


def call(name: str, example: Example, **arguments):
    tool = TOOLS[name]
    (ref,) = tool(tool.checked(arguments), Context(example, example.images, VIEW))
    image = ref.open()
    assert image.size == image_size(ref)
    assert math.prod(image.size) <= VIEW.image_pixels
    return image


def redness(image) -> float:
    """Share of the pixels that are red."""
    pixels = np.asarray(image).astype(int)
    return float(((pixels[..., 0] > 200) & (pixels[..., 1] < 60)).mean())


def test_zoom_shows_the_box_enlarged(example: Example) -> None:
    image = call("zoom", example, box=[100, 50, 150, 75])
    assert image.size == (200, 100)
    assert redness(image) == 1
    assert redness(call("zoom", example, box=[75, 50, 125, 75])) == pytest.approx(0.5, abs=0.03)


def test_zoom_of_one_pixel_and_of_a_thin_line_is_an_image(example: Example) -> None:
    assert redness(call("zoom", example, box=[120, 60, 120.5, 60.5])) == 1
    assert call("zoom", example, box=[0, 60, 200, 61]).height == 28


def test_the_published_zoom_tool_shows_what_zoom_shows_of_the_first_image(example: Example) -> None:
    box = [100, 50, 150, 75]
    found = call("image_zoom_in_tool", example, bbox_2d=box, label="a square")
    assert found.tobytes() == call("zoom", example, box=box).tobytes()
    assert call("image_zoom_in_tool", example, bbox_2d=box, label=None).size == found.size
    tool = TOOLS["image_zoom_in_tool"]
    with pytest.raises(ToolError, match="no image"):
        tool(tool.checked({"bbox_2d": box}), Context(example, (), VIEW))


def test_rotate_turns_clockwise(example: Example) -> None:
    image = call("rotate", example, degrees=90)
    assert image.size == (100, 200)
    # The right half is below, and the lower half is on the left.
    assert image.getpixel((30, 120)) == (255, 0, 0)
    assert call("rotate", example, degrees=-270).getpixel((30, 120)) == (255, 0, 0)
    assert call("rotate", example, degrees=0).tobytes() == example.images[0].open().tobytes()


def test_rotate_has_room_for_all_of_the_image(example: Example) -> None:
    image = call("rotate", example, degrees=30)
    # 200 cos 30° + 100 sin 30° = 223.2, and 200 sin 30° + 100 cos 30° = 186.6, shrunk to 20,000 pixels.
    assert image.width / image.height == pytest.approx(223.2 / 186.6, rel=0.02)
    # Half of the pixels on the square's edges are blended, of 36 × 18 in all.
    red = redness(image) * math.prod(image.size)
    assert red == pytest.approx(50 * 25 * 20_000 / (223.2 * 186.6), rel=0.1)


def test_compare_shows_two_parts_side_by_side(example: Example) -> None:
    image = call("compare", example, box=[100, 50, 150, 75], other_box=[0, 0, 50, 25])
    half = image.width // 2
    assert redness(image.crop((0, 0, half - 8, image.height - 2))) == 1
    assert redness(image.crop((half + 8, 0, image.width, image.height))) == 0
