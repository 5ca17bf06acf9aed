"""Image controls: blank and shuffled images, and the accuracy drop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError, Example, ImageRef, VideoRef
from data.images import image_ref
from data.videos.pictures import PictureSequence
from eval.controls import CONTROLS, accuracy_drop, blank, checked_controls, nothing_to_lose, shuffled
from eval.generate.generate import image_digest
from eval.results import EvalResult
from mm_cpgd.errors import UserError


def make_image(number: int, size: tuple[int, int] = (4, 3)) -> ImageRef:
    return ImageRef(f"p{number}", lambda: Image.new("RGB", size, (number, number // 256, 9)))


def row(name: int, *images: int) -> Example:
    return Example(str(name), "?", "1", images=tuple(make_image(number) for number in images))


def test_blank_images_are_grey_and_as_large_as_the_originals() -> None:
    rows = [
        Example("a", "?", "1", images=(make_image(1, (30, 20)), make_image(2, (5, 7)))),
        Example("text", "?", "1"),
    ]
    (found,) = blank(rows)
    opened = [image.open() for image in found.images]
    assert [image.size for image in opened] == [(30, 20), (5, 7)]
    assert all(image.getcolors() == [(image.width * image.height, (128, 128, 128))] for image in opened)
    assert found.question == "?"


def test_blank_needs_only_the_size_of_the_original(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (found,) = blank([Example("a", "?", "1", images=(image_ref(tmp_path / "a.png"),))])
    assert found.images[0].open().size == (60, 40)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 10, 41])
def test_shuffling_gives_every_row_the_images_of_another_one(seed: int, count: int) -> None:
    found = shuffled([row(i, i) for i in range(count)], seed)
    origins = [one.images[0].origin for one in found]
    assert sorted(origins) == sorted(f"p{i}" for i in range(count))
    assert all(origin != f"p{one.id}" for origin, one in zip(origins, found, strict=True))
    assert [one.id for one in found] == [str(i) for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_rows_with_the_same_image_do_not_exchange_it(seed: int) -> None:
    # Like five versions of each problem: 3 images, one of them in half of the rows.
    shown = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    found = shuffled([row(i, number) for i, number in enumerate(shown)], seed)
    assert all(one.images[0].origin != f"p{shown[int(one.id)]}" for one in found)


def test_shuffling_is_the_same_for_the_same_seed_only() -> None:
    rows = [row(i, i) for i in range(30)]
    one, again, other = ([r.images[0].origin for r in shuffled(rows, seed)] for seed in (1, 1, 2))
    assert one == again != other


def test_a_shuffled_row_has_as_many_images_as_before() -> None:
    rows = [row(0, 10), row(1, 20, 21, 22), Example("text", "?", "1")]
    found = {one.id: [image.origin for image in one.images] for one in shuffled(rows, 0)}
    assert found == {"0": ["p20"], "1": ["p10", "p10", "p10"]}


def test_an_unreadable_image_is_not_given_to_another_row(tmp_path: Path) -> None:
    lost = image_ref(tmp_path / "lost.png")
    rows = [row(0, 0), Example("lost", "?", "1", images=(lost,)), row(1, 1)]
    found = {one.id: one.images[0].origin for one in shuffled(rows, 0)}
    assert found == {"0": "p1", "lost": str(tmp_path / "lost.png"), "1": "p0"}


def test_one_image_in_most_rows_cannot_be_shuffled() -> None:
    with pytest.raises(DataError, match="2 of 3 rows have the same image"):
        shuffled([row(0, 0), row(1, 0), row(2, 5)], 0)


def test_images_are_compared_by_content_not_by_name() -> None:
    rows = [Example(str(i), "?", "1", images=(ImageRef("bytes (9)", make_image(i).load),)) for i in range(4)]
    given = [image_digest(one.images[0]) for one in shuffled(rows, 0)]
    assert all(new != image_digest(old.images[0]) for new, old in zip(given, rows, strict=True))


def test_without_images_rows_that_had_none_are_no_control() -> None:
    rows = [Example("a", "In <image1>, how many?", "1", images=(make_image(1),)), row(2)]
    (found,) = CONTROLS["text-only"](rows, 0)
    assert (found.id, found.question, found.images) == ("a", "In , how many?", ())


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(UserError, match="shuffled"):
        checked_controls(["blank", "shufled"])
    assert checked_controls(["blank", "blank"]) == ["blank"]


def result(scores: dict[str, float | None]) -> EvalResult:
    rows = [
        {
            "id": name, "sample": 0, "groups": {}, "question": "?", "answer": "1", "choices": [],
            "protocols": {"official": {"score": score, "extracted": None}},
        }
        for name, score in scores.items()
    ]  # fmt: skip
    return EvalResult({"benchmark": "b", "protocol": "official", "protocols": {"official": {}}}, rows)


def test_the_drop_is_taken_over_the_questions_that_both_scored() -> None:
    own = result({"a": 1, "b": 1, "c": 1, "d": 0, "text": 1, "unscored": 1})
    other = result({"a": 1, "b": 0, "c": 0, "d": 0, "unscored": None})
    found = accuracy_drop(own, other, "official")
    assert (found["n"], found["accuracy"], found["control"], found["drop"]) == (4, 0.75, 0.25, 0.5)
    # Two of two changes are losses: McNemar's p is 2 · (1/2)².
    assert found["p"] == 0.5
    low, high = found["interval"]
    assert low < 0.5 < high


def test_nothing_scored_has_no_drop() -> None:
    drop = accuracy_drop(result({"a": 1}), result({"a": None}), "official")
    assert drop["drop"] is None
    assert "the drop is unknown" in (nothing_to_lose(drop) or "")


def test_without_a_right_response_nothing_could_be_lost() -> None:
    drop = accuracy_drop(result({"a": 0, "b": 0}), result({"a": 0, "b": 1}), "official")
    assert "no response is right with the original images" in (nothing_to_lose(drop) or "")


def test_a_drop_from_a_right_response_says_something() -> None:
    drop = accuracy_drop(result({"a": 0.5, "b": 0}), result({"a": 0, "b": 0}), "official")
    assert nothing_to_lose(drop) is None


def clip(name: str, levels: list[int]) -> VideoRef:
    frames = tuple(ImageRef(f"{name} {n}", partial(Image.new, "RGB", (4, 3), (n, n, n))) for n in levels)
    return VideoRef(name, PictureSequence(name, frames, 2.0))


def levels_of(example: Example) -> list[int]:
    (video,) = example.videos
    frames = video.read(range(len(video.timeline())))
    return [np.asarray(frame)[0, 0, 0].item() for frame in frames]


def test_videos_become_grey_reversed_and_still() -> None:
    rows = [Example("a", "?", "1", videos=(clip("v", [1, 2, 3, 4]),)), row(1, 5), Example("text", "?", "1")]
    assert [one.id for one in blank(rows)] == ["a", "1"]
    assert levels_of(blank(rows)[0]) == [128] * 4
    (backwards,), (still,) = CONTROLS["reversed"](rows, 0), CONTROLS["still"](rows, 0)
    assert levels_of(backwards) == [4, 3, 2, 1]
    assert [np.asarray(one)[0, 0, 0].item() for one in backwards.videos[0].read([0, 2])] == [4, 2]
    assert levels_of(still) == [3, 3, 3, 3]
    assert [one.videos for one in CONTROLS["text-only"](rows, 0)] == [(), ()]


def test_videos_are_shuffled_among_rows_with_videos() -> None:
    videos = [Example(str(n), "?", "1", videos=(clip(f"v{n}", [n, n]),)) for n in range(5)]
    found = shuffled([*videos, row(7, 7), row(8, 8)], 1)
    assert sorted(one.videos[0].origin for one in found[:5]) == [f"v{n}" for n in range(5)]
    assert all(one.videos[0].origin != f"v{one.id}" for one in found[:5])
    assert [one.images[0].origin for one in found[5:]] == ["p8", "p7"]
