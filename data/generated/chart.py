"""Task ``chart``: read a bar chart of four coloured bars."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from data.generated.scene import CELL, COLOURS, INK, SIDE, Question, blank, list_values, shade

UNIT = 12  # pixels of height for a value of one
HIGHEST = 8


@dataclass(frozen=True)
class Scene:
    """Pairs of colour and height (units), from left to right; all heights differ. ``edges``: pixels."""

    heights: tuple[tuple[str, int], ...]
    edges: tuple[tuple[int, int], ...]
    fills: tuple[tuple[int, int, int], ...]


def make(rng: random.Random) -> Scene:
    """Draw a random order of the four colours and different heights."""
    colours = rng.sample(list(COLOURS), 4)
    heights = tuple(zip(colours, rng.sample(range(1, HIGHEST + 1), 4), strict=True))
    lefts = [index * CELL + rng.randint(2, 7) for index in range(4)]
    edges = tuple((left, left + rng.randint(14, 19)) for left in lefts)
    return Scene(heights, edges, tuple(shade(colour, rng) for colour in colours))


def draw(scene: Scene) -> Image.Image:
    """Render bars that stand on the lower edge, over thin grid lines one unit apart."""
    image, pen = blank()
    for level in range(1, HIGHEST + 1):
        y = SIDE - 4 - level * UNIT
        pen.line((0, y, SIDE, y), fill=(225, 225, 225))
    for (_, height), (left, right), fill in zip(scene.heights, scene.edges, scene.fills, strict=True):
        pen.rectangle((left, SIDE - 4 - height * UNIT, right, SIDE - 4), fill=fill)
    pen.line((0, SIDE - 3, SIDE, SIDE - 3), fill=INK, width=2)
    return image


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for one value, for a difference, or for the tallest or shortest bar."""
    values = dict(scene.heights)
    seen = list_values(values) + "."
    numbers = [str(n) for n in range(1, HIGHEST + 1)]
    first, second = sorted(rng.sample(list(values), 2), key=lambda name: -values[name])
    kind = rng.choice(("value", "difference", "extreme"))
    if kind == "value":
        return Question(f"What is the value of the {first} bar?", str(values[first]), seen, numbers)
    if kind == "difference":
        gap = values[first] - values[second]
        text = f"How much taller is the {first} bar than the {second} bar?"
        return Question(text, str(gap), f"{seen} {values[first]} - {values[second]} = {gap}.", numbers)
    word, pick = rng.choice((("tallest", max), ("shortest", min)))
    best = pick(values, key=lambda name: values[name])
    return Question(f"Which bar is the {word}?", best, f"{seen} The {word} is {values[best]}.", list(COLOURS))


def describe(scene: Scene) -> str:
    """List every bar from left to right."""
    return list_values(dict(scene.heights)) + "."
