"""Rollouts of a run: written in the background, read back, and dropped on resume."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.example import DataError, ImageRef
from mm_cpgd.errors import UserError
from mm_cpgd.tracking import (
    PromptRollout,
    RolloutLog,
    ScoredCompletion,
    ScoredComponent,
    read_rollouts,
    rollout_files,
)
from tests.fakes.rollouts import write_rollouts


def image(size: tuple[int, int] = (8, 8), color: str = "red") -> ImageRef:
    return ImageRef(origin="drawn", load=lambda: Image.new("RGB", size, color))


def prompt(identity: str = "q1", text: str = "<answer>4</answer>") -> PromptRollout:
    components = {
        "accuracy": ScoredComponent(1.0, "correct", "4", "4 equals 4"),
        "format": ScoredComponent(None, "error", None, "no rule"),
    }
    completion = ScoredCompletion(text, 12, True, 1.5, -0.25, components)
    return PromptRollout(identity, "How many? 几个", "4", (completion, completion))


def test_rollouts_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, images=1)
    write_rollouts(log, 12, [prompt("a"), prompt("b")], [[image(), image()], [image()]])
    first, second = read_rollouts(tmp_path / "iteration-000012.jsonl")
    assert first.images == ("000012-0000-0.png", "000012-0000-1.png")
    assert (second.images, second.id) == ((), "b")
    assert first.completions == prompt().completions
    assert first.question == "How many? 几个"


def test_a_line_of_rollouts_is_plain_json_with_the_verdicts_reasons(tmp_path: Path) -> None:
    write_rollouts(RolloutLog(tmp_path), 1, [prompt()], [[]])
    row = json.loads((tmp_path / "iteration-000001.jsonl").read_text())
    assert row["completions"][0]["components"]["accuracy"] == {
        "score": 1.0,
        "status": "correct",
        "extracted": "4",
        "reason": "4 equals 4",
    }


def test_rollouts_are_written_at_their_interval_and_when_forced(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, every=3)
    for iteration in range(1, 8):
        write_rollouts(log, iteration, [prompt()], [[]], force=iteration == 6)
    assert list(rollout_files(tmp_path)) == [1, 4, 6, 7]


def test_images_are_opened_only_where_they_are_kept(tmp_path: Path) -> None:
    def explode() -> Image.Image:
        raise AssertionError("opened")

    references = [[image()], [ImageRef("untouched", explode)]]
    write_rollouts(RolloutLog(tmp_path, every=2, images=1), 1, [prompt(), prompt()], references)
    write_rollouts(RolloutLog(tmp_path, every=2, images=1), 2, [prompt()], [[ImageRef("untouched", explode)]])
    assert [file.name for file in (tmp_path / "images").iterdir()] == ["000001-0000-0.png"]


def test_a_large_image_is_kept_as_a_thumbnail_of_512_pixels(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 1024, 3), dtype=np.uint8))
    write_rollouts(RolloutLog(tmp_path), 1, [prompt()], [[ImageRef("noise", lambda: noise)]])
    file = tmp_path / "images" / "000001-0000-0.jpg"
    with Image.open(file) as image:
        assert image.size == (512, 150)
    assert noise.size == (1024, 300)


def test_an_image_that_no_longer_opens_is_left_out(tmp_path: Path) -> None:
    def gone() -> Image.Image:
        raise DataError("gone")

    write_rollouts(RolloutLog(tmp_path), 1, [prompt()], [[ImageRef("gone", gone), image()]])
    assert read_rollouts(tmp_path / "iteration-000001.jsonl")[0].images == ("000001-0000-1.png",)


def test_half_a_surrogate_pair_in_a_completion_is_kept(tmp_path: Path) -> None:
    write_rollouts(RolloutLog(tmp_path), 1, [prompt(text="a\udc80\u2028\nb")], [[]])
    assert read_rollouts(tmp_path / "iteration-000001.jsonl")[0].completions[0].text == "a\udc80\u2028\nb"


def test_prompts_and_images_of_different_counts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_rollouts(RolloutLog(tmp_path), 1, [prompt(), prompt()], [[]])


def test_rollouts_of_later_iterations_are_dropped_on_resume(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path)
    for iteration in (1, 2, 1_000_000):
        write_rollouts(log, iteration, [prompt()], [[image()]])
    log.truncate_after(1)
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == [
        "000001-0000-0.png",
        "iteration-000001.jsonl",
    ]


def test_a_line_that_is_no_rollout_is_named(tmp_path: Path) -> None:
    write_rollouts(RolloutLog(tmp_path), 1, [prompt()], [[]])
    path = tmp_path / "iteration-000001.jsonl"
    path.write_text(path.read_text() + '{"id": 1}\n')
    with pytest.raises(UserError, match="line 2: not a rollout"):
        read_rollouts(path)


def test_rollouts_are_written_while_the_caller_continues(tmp_path: Path) -> None:
    opened, proceed = threading.Event(), threading.Event()

    def slow() -> Image.Image:
        opened.set()
        assert proceed.wait(10)
        return Image.new("RGB", (2, 2))

    log = RolloutLog(tmp_path)
    log.write(1, [prompt()], [[ImageRef("slow", slow)]])
    assert opened.wait(10)
    assert not log.path(1).exists()
    proceed.set()
    log.flush()
    assert log.path(1).exists()


def test_a_write_that_fails_in_the_background_is_reported_at_the_next_flush(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = RolloutLog(tmp_path / "file")
    log.write(1, [prompt()], [[]])
    with pytest.raises(UserError):
        log.flush()
    log.flush()
