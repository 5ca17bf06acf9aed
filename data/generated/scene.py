"""What every generated task is made of: a picture as data, a question, and how it may be answered."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIDE = 112  # pixels: 4 x 4 visual tokens for patches of 14 merged two by two
CELL = SIDE // 4  # pixels: what one visual token covers
COLOURS = {"red": (214, 39, 40), "blue": (31, 90, 200), "green": (34, 150, 60), "yellow": (240, 190, 0)}
INK = (40, 40, 40)


@dataclass(frozen=True)
class Question:
    """A question about one picture.

    Attributes:
        text: what is asked.
        answer: the right answer.
        steps: what a careful reader writes down before answering.
        guesses: answers that sound right to one who has not looked, the right one possibly among them.
    """

    text: str
    answer: str
    steps: str
    guesses: Sequence[str]

    @property
    def solution(self) -> str:
        """The careful worked solution in the format that the rewards ask for."""
        return respond(self.steps, self.answer)


def respond(steps: str, answer: str) -> str:
    """Put thought and answer into ``<think>…</think><answer>…</answer>``."""
    return f"<think>{steps}</think><answer>{answer}</answer>"


def shade(colour: str, rng: random.Random) -> tuple[int, int, int]:
    """Return the colour with a little of its own in each channel, so that no two pictures are the same."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-14, 14))) for channel in COLOURS[colour])
    return red, green, blue


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty white picture and its pen."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    return image, ImageDraw.Draw(image)


def list_values(values: dict[str, int]) -> str:
    """``{"red": 5, "blue": 3}`` → ``red 5, blue 3``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
