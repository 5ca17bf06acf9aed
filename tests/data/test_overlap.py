"""Rows of two sets that are the same row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from data import Example, ImageRef, load_examples, shared_rows
from data.images import image_ref


def row(question: str, *images: ImageRef, number: str = "1") -> Example:
    return Example(number, question, "4", images)


def test_the_same_question_about_the_same_picture_is_the_same_row(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("copy_of_a", "red"), ("b", "blue")):
        Image.new("RGB", (30, 30), colour).save(tmp_path / f"{name}.png")
    a, copy, b = (image_ref(tmp_path / f"{name}.png") for name in ("a", "copy_of_a", "b"))
    train = [row("How many?", a), row("Which  colour?", b)]
    held_out = [
        row("How many?", copy, number="other"),  # another name and id
        row("How many?", b),  # another picture
        row("How many\n?", a),  # another question
        row("Which colour?", b),  # other spaces
        row("How many?"),  # no picture
        row("How many?", a, b),
    ]
    assert shared_rows(train, held_out) == [held_out[0], held_out[3]]


def test_generated_rows_are_the_same_if_they_are_drawn_from_the_same() -> None:
    train = load_examples("generated:all", limit=40, seed=1).examples
    assert len(shared_rows(train, load_examples("generated:all", limit=16, seed=1).examples)) == 16
    assert shared_rows(train, load_examples("generated:all", limit=16, seed=2).examples) == []


def test_pictures_in_memory_are_compared_by_their_pixels(noise_image: Callable[..., ImageRef]) -> None:
    picture = noise_image(20, 20).open()
    same, other = ImageRef("x", lambda: picture.copy()), ImageRef("x", lambda: picture.rotate(90))
    train = [row("q", ImageRef("y", lambda: picture))]
    assert shared_rows(train, [row("q", same)])
    assert not shared_rows(train, [row("q", other)])


def test_a_picture_that_cannot_be_read_equals_none(tmp_path: Path) -> None:
    gone = image_ref(tmp_path / "gone.png")
    assert shared_rows([row("q", gone)], [row("q", gone)]) == []
