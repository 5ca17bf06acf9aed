"""Task ``clock``: read an analogue clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from PIL import Image

from data.generated.scene import INK, SIDE, Question, blank, shade


@dataclass(frozen=True)
class Scene:
    """A time of day and a clock face.

    ``hour`` is 1 to 12; the long hand points at ``mark`` 0 to 11 (five minutes each); ``centre`` and
    ``radius`` are in pixels.
    """

    hour: int
    mark: int
    centre: tuple[float, float]
    radius: float
    hands: tuple[tuple[int, int, int], tuple[int, int, int]]

    @property
    def time(self) -> str:
        """The time in the form ``3:05``."""
        return f"{self.hour}:{self.mark * 5:02d}"


def make(rng: random.Random) -> Scene:
    """Draw a time that is a multiple of five minutes and a face slightly off the centre."""
    centre = (SIDE / 2 + rng.uniform(-3, 3), SIDE / 2 + rng.uniform(-3, 3))
    hands = (shade("red", rng), shade("blue", rng))
    return Scene(rng.randint(1, 12), rng.randrange(12), centre, rng.uniform(46, 52), hands)


def draw(scene: Scene) -> Image.Image:
    """Render a face with twelve ticks, a thick short hand (red) and a thin long hand (blue)."""
    image, pen = blank()
    (x, y), r = scene.centre, scene.radius
    pen.ellipse((x - r, y - r, x + r, y + r), outline=INK, width=2)
    for tick in range(12):
        pen.line((*_at(scene, tick / 12, 0.86), *_at(scene, tick / 12, 0.98)), fill=INK, width=2)
    short, long = scene.hands
    pen.line((x, y, *_at(scene, (scene.hour + scene.mark / 12) / 12, 0.55)), fill=short, width=7)
    pen.line((x, y, *_at(scene, scene.mark / 12, 0.84)), fill=long, width=4)
    return image


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for the time."""
    times = [f"{hour}:{minute:02d}" for hour in range(1, 13) for minute in range(0, 60, 5)]
    return Question("What time does the clock show?", scene.time, describe(scene), times)


def describe(scene: Scene) -> str:
    """State where both hands point."""
    return f"long hand at {scene.mark}, short hand at {scene.hour}."


def _at(scene: Scene, turn: float, reach: float) -> tuple[float, float]:
    """Return the point at ``turn`` (share of a circle, clockwise from 12) and ``reach`` (share of radius)."""
    angle = 2 * math.pi * turn
    x, y = scene.centre
    return x + reach * scene.radius * math.sin(angle), y - reach * scene.radius * math.cos(angle)
