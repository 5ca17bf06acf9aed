"""Task ``table``: read and add numbers of a small table."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageFont

from data.generated.scene import CELL, INK, SIDE, Question, blank

COLUMNS = "ABC"


@dataclass(frozen=True)
class Scene:
    """``numbers[row][column]``, three by three, each from 0 to 9."""

    numbers: tuple[tuple[int, ...], ...]


def make(rng: random.Random) -> Scene:
    """Draw the numbers."""
    return Scene(tuple(tuple(rng.randint(0, 9) for _ in COLUMNS) for _ in range(3)))


def draw(scene: Scene) -> Image.Image:
    """Render the table with a header row (A, B, C) and a header column (1, 2, 3)."""
    image, pen = blank()
    font = ImageFont.load_default(size=20)
    pen.rectangle((0, 0, SIDE, CELL - 1), fill=(222, 228, 238))
    pen.rectangle((0, 0, CELL - 1, SIDE), fill=(222, 228, 238))
    rows = [
        ["", *COLUMNS],
        *([str(index), *map(str, row)] for index, row in enumerate(scene.numbers, start=1)),
    ]
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            centre = (column * CELL + CELL // 2, row * CELL + CELL // 2)
            pen.text(centre, text, fill=INK, font=font, anchor="mm")
    for line in range(1, 4):
        pen.line((line * CELL, 0, line * CELL, SIDE), fill=(170, 170, 170))
        pen.line((0, line * CELL, SIDE, line * CELL), fill=(170, 170, 170))
    return image


def ask(scene: Scene, rng: random.Random) -> Question:
    """Ask for the sum of a row or a column, or for one cell."""
    row, column = rng.randrange(3), rng.randrange(3)
    kind = rng.choice(("row", "column", "cell"))
    if kind == "cell":
        value = scene.numbers[row][column]
        steps = f"row {row + 1}: {_join(scene.numbers[row])}."
        text = f"Which number is in row {row + 1}, column {COLUMNS[column]}?"
        return Question(text, str(value), steps, [str(n) for n in range(10)])
    if kind == "row":
        name, values = f"row {row + 1}", scene.numbers[row]
    else:
        name, values = f"column {COLUMNS[column]}", tuple(line[column] for line in scene.numbers)
    total = sum(values)
    steps = f"{name}: {_join(values)}. {' + '.join(map(str, values))} = {total}."
    return Question(f"What is the sum of {name}?", str(total), steps, [str(n) for n in range(6, 22)])


def describe(scene: Scene) -> str:
    """List the numbers, row by row."""
    return "; ".join(_join(row) for row in scene.numbers) + "."


def _join(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
