"""Task ``detail``: name the form of marks too small for a first look at the picture, which a crop shows.

Four coloured plates lie on a large picture, each with a white window printed with marks of one form in the
plate's colour. How much the marks of a plate cover does not depend on their form, and they lie closer to each
other than the pixels of the picture shrunk to ``SIDE`` pixels (``policy.max_pixels``). So a window is
then a pale spot, the same for all forms, while the plates' colours and places remain. The printed part of a
plate, enlarged to ``SIDE`` pixels, shows the marks as large as the shapes of the task ``shapes``.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from data.generated.scene import COLOURS, SIDE, Question, format_response, shade
from data.generated.shapes import FORMS

# Pixels: sides of the picture, of a cell of its four by four grid, and of a plate in the middle of a cell.
LARGE = 8 * SIDE
CELL = LARGE // 4
PLATE = CELL // 2
# Pixels: sides of the white window in a plate, and of its printed part with four by four marks.
WINDOW = 40
PRINT = 28
# Least and most pixels that each mark of a plate covers, distance of its rows and of its columns, distance of
# its print from the middle, and distance of each mark from its place.
AREA = (14.0, 18.0)
PITCH = (6.3, 7.3)
OFFSET = (-1.2, 1.2)
JITTER = (-0.6, 0.6)
PAPER = (255, 255, 255)
_FINE = 8  # marks are drawn this many times as large and shrunk, so that areas are equal to a part of a pixel


@dataclass(frozen=True)
class Plate:
    """A coloured square with 16 marks in its window.

    Attributes:
        colour: name of the colour.
        form: one of ``FORMS``.
        cell: column and row in the grid, from 0.
        area: pixels that each mark covers.
        places: the middle (x, y) of each mark in the window, pixels.
        fill: the colour of plate and marks.
    """

    colour: str
    form: str
    cell: tuple[int, int]
    area: float
    places: tuple[tuple[float, float], ...]
    fill: tuple[int, int, int]

    @property
    def outline(self) -> tuple[int, int, int, int]:
        """The plate as left, top, right, bottom, pixels."""
        return self.around(PLATE)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The printed part as left, top, right, bottom, pixels."""
        return self.around(PRINT)

    def around(self, side: int) -> tuple[int, int, int, int]:
        """A square of this side in the middle of the cell, pixels."""
        x, y = (index * CELL + (CELL - side) // 2 for index in self.cell)
        return x, y, x + side, y + side


@dataclass(frozen=True)
class Scene:
    """A plate of each colour, in cells of their own."""

    plates: tuple[Plate, ...]


def make(rng: random.Random) -> Scene:
    """Draw the cells, and a form and the displacements of the marks for each plate."""
    cells = rng.sample(range(16), len(COLOURS))
    return Scene(tuple(_plate(colour, cell, rng) for colour, cell in zip(COLOURS, cells, strict=True)))


def _plate(colour: str, cell: int, rng: random.Random) -> Plate:
    # Where the pixels of the first look divide the marks, and how much they cover, must not tell the form.
    right, down = rng.uniform(*OFFSET), rng.uniform(*OFFSET)
    wide, high = rng.uniform(*PITCH), rng.uniform(*PITCH)
    places = tuple(
        (
            WINDOW / 2 + right + (index % 4 - 1.5) * wide + rng.uniform(*JITTER),
            WINDOW / 2 + down + (index // 4 - 1.5) * high + rng.uniform(*JITTER),
        )
        for index in range(16)
    )
    form, fill = rng.choice(FORMS), shade(colour, rng)
    return Plate(colour, form, (cell % 4, cell // 4), rng.uniform(*AREA), places, fill)


def draw(scene: Scene) -> Image.Image:
    """Render the picture of ``LARGE`` pixels a side."""
    image = Image.new("RGB", (LARGE, LARGE), PAPER)
    pen = ImageDraw.Draw(image)
    for plate in scene.plates:
        left, top, right, bottom = plate.outline
        pen.rectangle((left, top, right - 1, bottom - 1), fill=plate.fill)
        left, top, right, bottom = window = plate.around(WINDOW)
        pen.rectangle((left, top, right - 1, bottom - 1), fill=PAPER)
        image.paste(plate.fill, window, marks(plate))
    return image


def marks(plate: Plate) -> Image.Image:
    """Return the share of each pixel of the window that marks cover, 0 to 255."""
    fine = Image.new("L", (WINDOW * _FINE, WINDOW * _FINE))
    pen = ImageDraw.Draw(fine)
    for x, y in plate.places:
        _OUTLINES[plate.form](pen, x * _FINE, y * _FINE, plate.area * _FINE**2)
    return fine.reduce(_FINE)


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float, area: float) -> None:
    r = math.sqrt(area / math.pi)
    pen.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _square(pen: ImageDraw.ImageDraw, x: float, y: float, area: float) -> None:
    r = math.sqrt(area) / 2
    pen.rectangle((x - r, y - r, x + r, y + r), fill=255)


def _triangle(pen: ImageDraw.ImageDraw, x: float, y: float, area: float) -> None:
    # As wide as it is high, with its centre of mass at the place, as the other forms have.
    side = math.sqrt(2 * area)
    foot = y + side / 3
    pen.polygon(((x, foot - side), (x - side / 2, foot), (x + side / 2, foot)), fill=255)


_OUTLINES: dict[str, Callable[[ImageDraw.ImageDraw, float, float, float], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
}


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for the form on one of the plates; ``meta["box"]`` is its printed part, in pixels."""
    plate = rng.choice(scene.plates)
    text = f"Which shape is on the {plate.colour} plate?"
    meta = {"box": list(plate.box), "width": LARGE, "height": LARGE}
    steps = f"{plate.colour}: {plate.form}."
    turns = (look_at(plate), format_response(steps, plate.form))
    return Question(text, plate.form, steps, list(FORMS), meta, turns)


def look_at(plate: Plate) -> str:
    """Return the turn that calls the tool ``zoom`` for the plate's print, in thousandths of the sides."""
    box = [round(edge * 1000 / LARGE) for edge in plate.box]
    call = json.dumps({"name": "zoom", "arguments": {"box": box}})
    return f"<think>{_place(plate)}</think><tool_call>{call}</tool_call>"


def describe(scene: Scene) -> str:
    """List where the plates lie, which the whole picture shows; not their marks."""
    return ", ".join(map(_place, scene.plates)) + "."


def _place(plate: Plate) -> str:
    column, row = plate.cell
    return f"{plate.colour} row {row + 1} column {column + 1}"
