"""Distances and colours."""

from __future__ import annotations

import pytest

from data import Example
from mm_cpgd.environments import Context, ToolError, View
from mm_cpgd.environments.tools import TOOLS
from mm_cpgd.environments.tools.measure import nearest_colour


def call(name: str, example: Example, **arguments) -> str:
    tool = TOOLS[name]
    return tool(tool.checked(arguments), Context(example, example.images, View("thousandths")))[0]


def test_a_distance_is_in_pixels_of_the_image(example: Example) -> None:
    # 30 pixels across are 150 thousandths of 200, 40 down are 400 of 100.
    assert call("measure_distance", example, start=[100, 100], end=[250, 500]) == (
        "50 pixels (+30 across, +40 down) in an image of 200 × 100 pixels"
    )
    with pytest.raises(ToolError, match="outside"):
        call("measure_distance", example, start=[100, 100], end=[250, 1001])


def test_a_colour_is_the_mean_around_the_point(example: Example) -> None:
    assert call("read_colour", example, point=[600, 600]) == "rgb(255, 0, 0), nearest to red"
    assert call("read_colour", example, point=[0, 0]) == "rgb(255, 255, 255), nearest to white"
    assert call("read_colour", example, point=[1000, 1000], radius=50).endswith("white")
    # Columns 99 to 101 of which two are red: (255, 85, 85).
    assert call("read_colour", example, point=[500, 600], radius=1).startswith("rgb(255, 85, 85)")
    with pytest.raises(ToolError, match="radius"):
        call("read_colour", example, point=[0, 0], radius=51)


def test_names_of_colours() -> None:
    assert [nearest_colour(rgb) for rgb in ((250, 160, 10), (1, 1, 1), (0, 0, 240))] == [
        "orange",
        "black",
        "blue",
    ]
