"""Task ``detail``: name a pattern too fine for a first look at the whole picture, which a crop shows.

Four coloured plates lie on a large picture, and each bears a small patterned patch. All patterns cover half
of their patch, with the period to which a pixel corresponds when the picture is shrunk to ``SIDE`` pixels, as
``policy.max_pixels`` does it. So the patch is then a plain spot, the same for all patterns, while the plates'
colours and places remain. A part of the picture around a plate shows the pattern.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from data.generated.scene import COLOURS, SIDE, Question, format_response, shade

SCALE = 8
# Pixels: sides of the picture, of a cell of its four by four grid, of a plate and of a patch.
LARGE = SIDE * SCALE
CELL = LARGE // 4
PLATE = 112
PATCH = 6 * SCALE
_HALF = SCALE // 2
# Of a pixel (x, y): the number of its stripe, or of its square; every second one is white.
PATTERNS: dict[str, Callable[[Any, Any], Any]] = {
    "lines": lambda x, y: y // _HALF,
    "bars": lambda x, y: x // _HALF,
    "checks": lambda x, y: x // _HALF + y // _HALF,
    "slants": lambda x, y: (x + y) // _HALF,
}
PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Plate:
    """A coloured square with a patterned patch.

    Attributes:
        colour: name of the plate's colour.
        pattern: a key of ``PATTERNS``.
        corner: upper left corner of the plate (x, y), pixels.
        patch: upper left corner of the patch (x, y), pixels.
        phase: displacement of the pattern (x, y), pixels.
        fill: the plate's colour.
    """

    colour: str
    pattern: str
    corner: tuple[int, int]
    patch: tuple[int, int]
    phase: tuple[int, int]
    fill: tuple[int, int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The plate as left, top, right, bottom, pixels."""
        x, y = self.corner
        return x, y, x + PLATE, y + PLATE


@dataclass(frozen=True)
class Scene:
    """A plate of each colour, in cells of their own."""

    plates: tuple[Plate, ...]


def make(rng: random.Random) -> Scene:
    """Draw the cells, and a pattern and a place for each plate."""
    cells = rng.sample(range(16), len(COLOURS))
    return Scene(tuple(_plate(colour, cell, rng) for colour, cell in zip(COLOURS, cells, strict=True)))


def _plate(colour: str, cell: int, rng: random.Random) -> Plate:
    room = CELL - PLATE
    x, y = (cell % 4) * CELL + rng.randint(0, room), (cell // 4) * CELL + rng.randint(0, room)
    inside = PLATE - PATCH - SCALE
    patch = (x + rng.randint(SCALE, inside), y + rng.randint(SCALE, inside))
    phase = (rng.randrange(SCALE), rng.randrange(SCALE))
    return Plate(colour, rng.choice(list(PATTERNS)), (x, y), patch, phase, shade(colour, rng))


def draw(scene: Scene) -> Image.Image:
    """Render the picture of ``LARGE`` pixels a side."""
    image = Image.new("RGB", (LARGE, LARGE), PAPER)
    pen = ImageDraw.Draw(image)
    for plate in scene.plates:
        left, top, right, bottom = plate.box
        pen.rectangle((left, top, right - 1, bottom - 1), fill=plate.fill)
        y, x = np.mgrid[:PATCH, :PATCH]
        white = PATTERNS[plate.pattern](x + plate.phase[0], y + plate.phase[1]) % 2
        image.paste(PAPER, plate.patch, Image.fromarray((white * 255).astype(np.uint8)))
    return image


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for the pattern on one of the plates; ``meta["box"]`` is the plate, in pixels."""
    plate = rng.choice(scene.plates)
    text = f"Which pattern is on the {plate.colour} square?"
    meta = {"box": list(plate.box), "width": LARGE, "height": LARGE}
    steps = f"{plate.colour}: {plate.pattern}."
    turns = (look_at(plate), format_response(steps, plate.pattern))
    return Question(text, plate.pattern, steps, list(PATTERNS), meta, turns)


def look_at(plate: Plate) -> str:
    """Return the turn that calls the tool ``zoom`` for the plate's cell, in thousandths of the sides."""
    column, row = plate.corner[0] // CELL, plate.corner[1] // CELL
    box = [column * 250, row * 250, (column + 1) * 250, (row + 1) * 250]
    call = json.dumps({"name": "zoom", "arguments": {"box": box}})
    return f"<think>{_place(plate)}</think><tool_call>{call}</tool_call>"


def describe(scene: Scene) -> str:
    """List where the plates lie, which the whole picture shows; not their patterns."""
    return ", ".join(map(_place, scene.plates)) + "."


def _place(plate: Plate) -> str:
    return f"{plate.colour} row {plate.corner[1] // CELL + 1} column {plate.corner[0] // CELL + 1}"
