"""The task ``detail``: the whole picture hides the marks, a crop of the box in ``meta`` shows it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data import Example
from data.generated import ALL, cold_start, generate
from data.generated.detail import AREA, CELL, LARGE, PRINT, WINDOW, draw, make, marks
from data.generated.scene import COLOURS, SIDE
from data.generated.shapes import FORMS
from data.images import image_size
from mm_cpgd.environments import ToolEnvironment

ROWS = generate(("detail",), 900, seed=3)
SCALE = LARGE // SIDE


def at_first_look(example: Example) -> NDArray[np.float64]:
    """The window in the picture shrunk to 112 pixels, at the same place in a pixel for all plates."""
    image = example.images[0].open().resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    left, top, right, bottom = example.meta["box"]
    x, y = (left + right) // 2 // SCALE, (top + bottom) // 2 // SCALE
    return _grey(image.crop((x - 4, y - 4, x + 4, y + 4)))


def in_a_crop(example: Example) -> NDArray[np.float64]:
    """Spectrum of the print: where the marks lie does not matter, as for a policy that has read many."""
    return np.abs(np.fft.fft2(_grey(example.images[0].open().crop(example.meta["box"]))))


def _grey(image: Image.Image) -> NDArray[np.float64]:
    pixels = np.asarray(image.convert("L")).astype(float)
    return (pixels - np.median(pixels)) / 255


def share_right(features: list[NDArray[np.float64]], answers: list[str]) -> float:
    """Share of the last third that the nearest five of the others tell, for the best classifier by eye."""
    rows = np.array([one.ravel() for one in features])
    names = np.array(answers)
    known, asked = rows[: len(rows) * 2 // 3], rows[len(rows) * 2 // 3 :]
    squares = (known**2).sum(1)[None] - 2 * asked @ known.T
    votes = names[np.argsort(squares, axis=1)[:, :5]]
    told = [Counter(vote).most_common(1)[0][0] for vote in votes.tolist()]
    return float(np.mean(np.array(told) == names[len(known) :]))


def test_the_form_is_hidden_at_first_and_shown_by_the_crop() -> None:
    answers = [example.answer for example in ROWS]
    assert share_right([in_a_crop(example) for example in ROWS], answers) > 0.95
    # One in three is chance.
    assert share_right([at_first_look(example) for example in ROWS], answers) < 0.42


def test_at_first_look_all_forms_have_the_same_contrast() -> None:
    contrast = {name: [] for name in FORMS}
    for example in ROWS:
        contrast[example.answer].append(np.abs(at_first_look(example)).mean())
    means = [np.mean(values) for values in contrast.values()]
    assert max(means) / min(means) < 1.1


def test_the_first_look_shows_where_the_plate_is() -> None:
    for example in ROWS[:100]:
        image = example.images[0].open().resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        left, top, _, _ = example.meta["box"]
        colour = next(word for word in COLOURS if word in example.question)
        # Above and left of the window, and still on the plate.
        margin = (WINDOW - PRINT) // 2 + 2 * SCALE
        pixel = image.getpixel(((left - margin) // SCALE, (top - margin) // SCALE))
        assert np.abs(np.array(pixel) - COLOURS[colour]).max() < 40


def test_the_box_is_the_print_in_the_middle_of_a_cell() -> None:
    for example in ROWS[:100]:
        left, top, right, bottom = example.meta["box"]
        assert (right - left, bottom - top) == (PRINT, PRINT)
        assert (left + right) / 2 % CELL == (top + bottom) / 2 % CELL == CELL / 2
        assert (example.meta["width"], example.meta["height"]) == image_size(example.images[0])


def test_answers_are_as_likely_as_each_other() -> None:
    counts = Counter(example.answer for example in ROWS)
    assert set(counts) == set(FORMS)
    assert min(counts.values()) > 0.75 * len(ROWS) / 3


@pytest.mark.parametrize("form", FORMS)
def test_marks_of_all_forms_cover_the_same(form: str) -> None:
    plates = [replace(make(random.Random(seed)).plates[0], form=form) for seed in range(50)]
    covered = [np.asarray(marks(plate)).sum() / 255 / 16 / plate.area for plate in plates]
    assert {AREA[0] <= plate.area <= AREA[1] for plate in plates} == {True}
    assert np.mean(covered) == pytest.approx(1.06, abs=0.015)
    assert np.std(covered) < 0.02


def test_the_same_seed_is_the_same_picture() -> None:
    first, again = (generate(("detail",), 3, seed=3) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert (one.question, one.answer, one.meta) == (other.question, other.answer, other.meta)
        assert one.images[0].open().tobytes() == other.images[0].open().tobytes()
    digests = {hashlib.sha256(example.images[0].open().tobytes()).digest() for example in ROWS[:50]}
    assert len(digests) == 50


def test_a_careful_conversation_looks_at_the_print_and_answers() -> None:
    rows = cold_start(("detail",), 60, seed=3, describe=0.2, careful=0.5)
    careful = [row for row in rows if "turns" in row.meta]
    assert 20 < len(careful) < 40
    for row in careful:
        call, answer = row.meta["turns"]
        made = ToolEnvironment(0, ["zoom"], scores={"crop_iou": {}})
        made.reset(row)
        assert made.step(call).scores["crop_iou"].score == 1
        assert answer.endswith(f"<answer>{row.answer}</answer>")


def test_all_leaves_it_out() -> None:
    assert "detail" not in ALL
    assert {example.meta["kind"] for example in generate(("all",), 12)} == set(ALL)


def test_a_picture_is_drawn_of_its_scene_alone() -> None:
    scene = make(random.Random(1))
    assert draw(scene).tobytes() == draw(scene).tobytes()
    assert draw(scene).size == (LARGE, LARGE)
