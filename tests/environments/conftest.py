"""An example whose picture has a red square on white, and a table."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from data import Example, ImageRef


def picture() -> Image.Image:
    """200 × 100 pixels, red in x 100 to 149 and y 50 to 74."""
    image = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(image).rectangle((100, 50, 149, 74), fill="red")
    return image


@pytest.fixture
def example() -> Example:
    return Example(
        "1",
        "What is <image> here?",
        "red",
        images=(ImageRef("picture", picture),),
        meta={"box": [100, 50, 150, 75], "table": "name | price\napple | 1.50\npear | 2"},
    )
