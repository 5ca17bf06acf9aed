"""Shared code of the generated tasks: canvas, colours, and ``Question`` with its possible answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw

SIDE = 112  # pixels: 4 x 4 visual tokens for patches of 14 merged two by two
CELL = SIDE // 4  # pixels: side of the area of one visual token
COLOURS = {"red": (214, 39, 40), "blue": (31, 90, 200), "green": (34, 150, 60), "yellow": (240, 190, 0)}
INK = (40, 40, 40)


@dataclass(frozen=True)
class Question:
    """A question about one image.

    Attributes:
        text: the question.
        answer: the gold answer.
        steps: reasoning of a careful solution, before the answer.
        guesses: answers that are plausible without the image; may include the gold answer.
        meta: further columns of the row.
        turns: turns of a careful conversation with tools, for kinds that need one.
    """

    text: str
    answer: str
    steps: str
    guesses: Sequence[str]
    meta: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[str, ...] = ()

    @property
    def solution(self) -> str:
        """The careful worked solution in the format that the rewards require."""
        return format_response(self.steps, self.answer)


def format_response(steps: str, answer: str) -> str:
    """Return ``<think>steps</think><answer>answer</answer>``."""
    return f"<think>{steps}</think><answer>{answer}</answer>"


def shade(colour: str, rng: random.Random) -> tuple[int, int, int]:
    """Return the colour with small random changes in each channel, so that no two images are the same."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-14, 14))) for channel in COLOURS[colour])
    return red, green, blue


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty white image and its drawing context."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    return image, ImageDraw.Draw(image)


def list_values(values: dict[str, int]) -> str:
    """Return ``red 5, blue 3`` for ``{"red": 5, "blue": 3}``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
