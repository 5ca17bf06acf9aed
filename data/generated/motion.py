"""Task ``motion``: a video in which one of two shapes moves for some seconds; which one, and when?"""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from data.generated.scene import CELL, COLOURS, Question, blank, shade
from data.generated.shapes import FORMS, draw_shape

SECONDS = 4
FPS = 2  # frames per second: the model reads the two frames of a second as a pair


@dataclass(frozen=True)
class Mover:
    """A shape in one row of the grid: its column at each second."""

    colour: str
    form: str
    fill: tuple[int, int, int]
    row: int
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """Two shapes of different colours, of which ``movers[moving]`` moves from second ``start`` to ``end``."""

    movers: tuple[Mover, Mover]
    moving: int
    start: int
    end: int


def make(rng: random.Random) -> Scene:
    """Draw two shapes in different rows; one of them moves by one column a second, to either side."""
    start, end = sorted(rng.sample(range(SECONDS), 2))
    colours, rows = rng.sample(list(COLOURS), 2), rng.sample(range(4), 2)
    moving = rng.randrange(2)
    movers = []
    for number in range(2):
        steps = [min(max(second - start, 0), end - start) * (number == moving) for second in range(SECONDS)]
        first = rng.randint(0, 3 - max(steps))
        columns = [first + step for step in steps]
        if rng.random() < 0.5:
            columns = [3 - column for column in columns]
        colour = colours[number]
        fill = shade(colour, rng)
        movers.append(Mover(colour, rng.choice(FORMS), fill, rows[number], tuple(columns)))
    return Scene((movers[0], movers[1]), moving, start, end)


def draw_frame(scene: Scene, number: int) -> Image.Image:
    """Render a frame, counted from 0."""
    image, pen = blank()
    for mover in scene.movers:
        x = mover.columns[number // FPS] * CELL + CELL // 2
        draw_shape(pen, mover.form, (x, mover.row * CELL + CELL // 2), mover.fill)
    return image


def span(scene: Scene) -> str:
    """Return when the shape moves, in seconds."""
    return f"{scene.start} to {scene.end}"


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask when the moving shape moves, or which shape does."""
    one = scene.movers[scene.moving]
    if rng.random() < 0.6:
        guesses = [f"{a} to {b}" for a in range(SECONDS) for b in range(a + 1, SECONDS)]
        text = f"When does the {one.colour} {one.form} move?"
        return Question(text, span(scene), f"{_columns(one)}.", guesses)
    seen = ", ".join(f"{mover.colour} {_columns(mover)}" for mover in scene.movers)
    return Question("Which shape moves?", one.colour, f"{seen}.", list(COLOURS))


def describe(scene: Scene) -> str:
    """List each shape with its column at every second."""
    return "; ".join(f"{mover.colour} {mover.form} {_columns(mover)}" for mover in scene.movers) + "."


def _columns(mover: Mover) -> str:
    return " ".join(str(column + 1) for column in mover.columns)
