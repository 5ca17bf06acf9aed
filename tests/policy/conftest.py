"""Examples with images of different shapes."""

from collections.abc import Callable

import pytest

from data import Example, ImageRef


@pytest.fixture(scope="session")
def examples(noise_image: Callable[..., ImageRef]) -> list[Example]:
    """A square image, a wide one, two in one prompt, and none."""
    two = (noise_image(140, 80, 2), noise_image(60, 170, 3))
    return [
        Example("square", "How many?", "3", images=(noise_image(112, 112, 0),)),
        Example("wide", "What is this?", "3", images=(noise_image(300, 64, 1),)),
        Example("two", "Is <image2> higher than <image1>, or not?", "3", images=two),
        Example("text", "How much is 1 + 2?", "3"),
    ]
