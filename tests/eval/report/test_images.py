"""Images of the page: thumbnails, lookup, byte budget."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from data import Example, ImageRef, image_ref
from tests.fakes.results import RIGHT, WRONG, page, result, row


def drawn(color: str, width: int = 8, height: int = 8) -> ImageRef:
    return ImageRef(f"drawn {color}", lambda: Image.new("RGB", (width, height), color))


def size_of(url: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size


def test_images_named_by_file_become_small_thumbnails(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 500), "red").save(tmp_path / "wide.png")
    folder = result(tmp_path / "run", [row("q1", RIGHT, images=(image_ref(tmp_path / "wide.png"),))])
    (url,) = page(tmp_path, folder).images
    assert size_of(url) == (384, 192)


def test_an_image_of_several_rows_is_stored_once(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "same.png")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "copy.png")
    refs = [image_ref(tmp_path / name) for name in ("same.png", "same.png", "copy.png")]
    folder = result(tmp_path / "run", [row(f"q{i}", RIGHT, images=(ref,)) for i, ref in enumerate(refs)])
    shown = page(tmp_path, folder)
    assert len(shown.images) == 1
    assert [question["images"] for question in shown.sets[0]["questions"]] == [[0], [0], [0]]


@pytest.mark.parametrize("relative", [False, True])
def test_images_beside_the_data_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "data" / "1.png")
    rows = [row("q1", RIGHT, images=(ImageRef("1.png", lambda: Image.new("RGB", (1, 1))),))]
    folder = result(
        tmp_path / "run",
        rows,
        settings={"data": str((Path() if relative else tmp_path) / "data" / "test.jsonl")},
    )
    assert len(page(tmp_path, folder).images) == 1


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    folder = result(tmp_path / "run", [row("q1", RIGHT, images=(drawn("red"),))])
    shown = page(tmp_path, folder)
    assert shown.images == []
    assert shown.sets[0]["questions"][0]["images"] == ["drawn red"]


def test_images_may_be_given_by_id_and_by_benchmark(tmp_path: Path) -> None:
    folder = result(tmp_path / "run", [row("q1", RIGHT)])
    by_id = {"q1": Example("q1", "", "", (drawn("red"),))}
    assert len(page(tmp_path, folder, images=by_id.get).images) == 1
    assert len(page(tmp_path, folder, images={"toy": by_id.get}).images) == 1
    assert len(page(tmp_path, folder, images={"other": by_id.get}).images) == 0
    assert len(page(tmp_path, folder, images=lambda name: Image.new("RGB", (4, 4))).images) == 1


def test_beyond_the_byte_budget_images_are_named_and_those_of_wrong_responses_kept(tmp_path: Path) -> None:
    rows = [row("q1", RIGHT, images=(drawn("red"),)), row("q2", WRONG, images=(drawn("blue"),))]
    folder = result(tmp_path / "run", rows)
    lookup = {one.example.id: one.example for one in rows}.get
    budget = len(page(tmp_path, folder, images=lookup).images[0]) + 10
    right, wrong = page(tmp_path, folder, images=lookup, byte_budget=budget).sets[0]["questions"]
    assert (right["images"], wrong["images"]) == (["drawn red"], [0])


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [row("q1", RIGHT, images=(image_ref(tmp_path / "broken.png"),))]
    shown = page(tmp_path, result(tmp_path / "run", rows))
    assert shown.sets[0]["questions"][0]["images"] == [str(tmp_path / "broken.png")]


def test_a_control_shows_the_images_that_it_was_generated_with(tmp_path: Path) -> None:
    whole = result(tmp_path / "whole", [row("q1", RIGHT, images=(drawn("red"),))])
    grey = ImageRef("grey for drawn red", lambda: Image.new("RGB", (8, 8)))
    blank = result(tmp_path / "blank", [row("q1", WRONG, images=(grey,))])
    summary = json.loads((blank / "summary.json").read_text()) | {
        "control": {"name": "blank", "protocols": {}}
    }
    (blank / "summary.json").write_text(json.dumps(summary))
    shown = page(tmp_path, whole, blank, images=lambda name: Image.new("RGB", (4, 4)))
    (question,) = shown.sets[0]["questions"]
    assert question["images"] == [0]
    assert [own["0"]["images"] for own in question["answers"]] == [None, ["grey for drawn red"]]
