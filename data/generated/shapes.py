"""Task ``shapes``: count coloured shapes on a four by four grid."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw

from data.generated.scene import CELL, COLOURS, Question, blank, shade

FORMS = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Scene:
    """``cells[row][column]`` is a (colour, form) pair or None, displaced by ``shifts`` (pixels)."""

    cells: tuple[tuple[tuple[str, str] | None, ...], ...]
    shifts: tuple[tuple[tuple[int, int], ...], ...]
    fills: Mapping[str, tuple[int, int, int]]


def make(rng: random.Random) -> Scene:
    """Draw a scene with unevenly frequent colours and forms, so that counts from 0 to about 9 occur."""
    filled = rng.uniform(0.35, 0.85)
    colours = rng.choices(list(COLOURS), k=3)
    forms = rng.choices(FORMS, k=3)

    def cell() -> tuple[str, str] | None:
        return (rng.choice(colours), rng.choice(forms)) if rng.random() < filled else None

    cells = tuple(tuple(cell() for _ in range(4)) for _ in range(4))
    shifts = tuple(tuple((rng.randint(-2, 2), rng.randint(-2, 2)) for _ in range(4)) for _ in range(4))
    return Scene(cells, shifts, {colour: shade(colour, rng) for colour in COLOURS})


def draw(scene: Scene) -> Image.Image:
    """Render the scene."""
    image, pen = blank()
    for row, cells in enumerate(scene.cells):
        for column, cell in enumerate(cells):
            if cell is None:
                continue
            colour, form = cell
            right, down = scene.shifts[row][column]
            place = column * CELL + CELL // 2 + right, row * CELL + CELL // 2 + down
            draw_shape(pen, form, place, scene.fills[colour])
    return image


def draw_shape(
    pen: ImageDraw.ImageDraw, form: str, place: tuple[int, int], fill: tuple[int, int, int]
) -> None:
    """Draw one of ``FORMS`` around a place (x, y)."""
    (x, y), r = place, 9
    if form == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif form == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    else:
        pen.polygon(((x, y - r), (x - r, y + r), (x + r, y + r)), fill=fill)


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for the number of shapes of a colour, of a form, or of both."""
    present = [cell for row in scene.cells for cell in row if cell]
    colour, form = rng.choice(list(COLOURS)), rng.choice(FORMS)
    if present and rng.random() < 0.8:
        colour, form = rng.choice(present)
    wanted = rng.choice(("colour", "form", "both"))
    name = {"colour": f"{colour} shapes", "form": f"{form}s", "both": f"{colour} {form}s"}[wanted]

    def matches(cell: tuple[str, str] | None) -> bool:
        return (
            cell is not None
            and (wanted == "form" or cell[0] == colour)
            and (wanted == "colour" or cell[1] == form)
        )

    marks = ["".join(str(int(matches(cell))) for cell in row) for row in scene.cells]
    rows = [row.count("1") for row in marks]
    steps = f"{', '.join(marks)}. {' + '.join(map(str, rows))} = {sum(rows)}."
    return Question(f"How many {name} are there?", str(sum(rows)), steps, [str(n) for n in range(1, 9)])


def describe(scene: Scene) -> str:
    """List every cell, row by row."""
    rows = (", ".join(" ".join(cell) if cell else "none" for cell in row) for row in scene.cells)
    return "; ".join(rows) + "."
