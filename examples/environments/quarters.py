r"""An environment with a tool of its own: a quarter of an image at twice its size, at a price.

mm-cpgd environments try examples/environments/quarters.py:environment generated:detail \
    --turn 'quarter {"which": "upper left"}' --turn '<answer>circle</answer>'
"""

from __future__ import annotations

from typing import Literal

from PIL import Image

from mm_cpgd.environments import Progress, ToolEnvironment

Quarter = Literal["upper left", "upper right", "lower left", "lower right"]


def quarter(image: Image.Image, which: Quarter) -> Image.Image:
    """Show a quarter of an image at twice its size.

    Args:
        image: number of the image, counted from 1.
        which: the quarter.
    """
    width, height = image.width // 2, image.height // 2
    left, top = width * ("right" in which), height * ("lower" in which)
    return image.crop((left, top, left + width, top + height)).resize(image.size)


def environment(seed: int, price: float = 0.1, max_turns: int = 4) -> ToolEnvironment:
    """The question, answered after any number of looks at quarters; each costs ``price``."""

    def looks(progress: Progress) -> float:
        return -price * len(progress.calls)

    return ToolEnvironment(seed, [quarter], max_turns=max_turns, image_pixels=12_544, scores={"looks": looks})
