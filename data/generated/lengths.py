"""Task ``lengths``: compare the lengths of four coloured lines."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from data.generated.scene import CELL, COLOURS, Question, blank, list_values, shade

UNIT = 12  # pixels of length for a value of one


@dataclass(frozen=True)
class Scene:
    """Pairs of colour and length (units), top to bottom; all differ. ``corners`` (upper left): pixels."""

    lengths: tuple[tuple[str, int], ...]
    corners: tuple[tuple[int, int], ...]
    fills: tuple[tuple[int, int, int], ...]


def make(rng: random.Random) -> Scene:
    """Draw a random order of the four colours, different lengths and random starting points."""
    lengths = rng.sample(range(1, 9), 4)
    colours = rng.sample(list(COLOURS), 4)
    corners = tuple(
        (rng.randint(0, 8 - length) * UNIT + rng.randint(4, 8), row * CELL + rng.randint(7, 12))
        for row, length in enumerate(lengths)
    )
    fills = tuple(shade(colour, rng) for colour in colours)
    return Scene(tuple(zip(colours, lengths, strict=True)), corners, fills)


def draw(scene: Scene) -> Image.Image:
    """Render one line per row."""
    image, pen = blank()
    for (_, length), (x, y), fill in zip(scene.lengths, scene.corners, scene.fills, strict=True):
        pen.rectangle((x, y, x + length * UNIT, y + 8), fill=fill)
    return image


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for the longest or shortest line, or how much longer one line is than another."""
    values = dict(scene.lengths)
    seen = list_values(values) + "."
    if rng.random() < 0.6:
        word, pick = rng.choice((("longest", max), ("shortest", min)))
        best = pick(values, key=lambda name: values[name])
        return Question(
            f"Which line is the {word}?", best, f"{seen} The {word} is {values[best]}.", list(COLOURS)
        )
    first, second = sorted(rng.sample(list(values), 2), key=lambda name: -values[name])
    gap = values[first] - values[second]
    text = f"How much longer is the {first} line than the {second} line?"
    steps = f"{seen} {values[first]} - {values[second]} = {gap}."
    return Question(text, str(gap), steps, [str(n) for n in range(1, 8)])


def describe(scene: Scene) -> str:
    """List every line from top to bottom."""
    return list_values(dict(scene.lengths)) + "."
