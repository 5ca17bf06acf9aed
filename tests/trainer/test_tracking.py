"""Metrics, rollouts and progress of a run: what is written, read back, and dropped on resume."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from data.example import DataError, ImageRef
from mm_cpgd.errors import UserError
from mm_cpgd.tracking import (
    MetricsLog,
    Progress,
    PromptRollout,
    RolloutLog,
    ScoredCompletion,
    ScoredComponent,
    read_metrics,
    read_rollouts,
    rollout_files,
)


def put(log: RolloutLog, *rollouts: Any, force: bool = False) -> None:
    """Write rollouts and wait until they are on disk."""
    log.write(*rollouts, force=force)
    log.flush()


def picture(size: tuple[int, int] = (8, 8), color: str = "red") -> ImageRef:
    return ImageRef(origin="drawn", load=lambda: Image.new("RGB", size, color))


def prompt(identity: str = "q1", text: str = "<answer>4</answer>") -> PromptRollout:
    components = {
        "accuracy": ScoredComponent(1.0, "correct", "4", "4 equals 4"),
        "format": ScoredComponent(None, "error", None, "no rule"),
    }
    completion = ScoredCompletion(text, 12, True, 1.5, -0.25, components)
    return PromptRollout(identity, "How many? 几个", "4", (completion, completion))


def test_metrics_are_one_json_line_an_iteration(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.write(1, {"reward/mean": 0.5})
    log.write(2, {"reward/mean": 0.75})
    lines = log.path.read_text().splitlines()
    assert lines == ['{"iteration": 1, "reward/mean": 0.5}', '{"iteration": 2, "reward/mean": 0.75}']


def test_what_json_lacks_becomes_null_and_scalars_become_numbers(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(
        1, {"a": float("nan"), "b": float("-inf"), "c": torch.tensor(2.5), "d": np.float32(0.5), "e": 3}
    )
    assert read_metrics(log.path) == [{"iteration": 1, "a": None, "b": None, "c": 2.5, "d": 0.5, "e": 3}]


def test_metrics_of_later_iterations_are_dropped_on_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for iteration in range(5):
        log.write(iteration, {"x": 0.1 * iteration})
    before = log.path.read_text()
    log.truncate_after(2)
    assert log.path.read_text() == "".join(line for line in before.splitlines(True)[:3])
    log.truncate_after(9)
    assert [row["iteration"] for row in read_metrics(log.path)] == [0, 1, 2]


def test_a_half_written_last_line_is_ignored_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2, "rew')
    assert read_metrics(path) == [{"iteration": 1}]
    MetricsLog(path).write(2, {})
    assert path.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_a_half_character_at_the_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n{"iteration": 2, "\xe6\x80')
    assert read_metrics(path) == [{"iteration": 1}]
    MetricsLog(path).truncate_after(1)
    assert path.read_text() == '{"iteration": 1}\n'


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"x": 1}', '{"iteration": "2"}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n' + line + '\n{"iteration": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)


def test_absent_metrics_are_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_disk_that_refuses_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        MetricsLog(tmp_path / "runs" / "metrics.jsonl").write(1, {})


def test_rollouts_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, images=1)
    put(log, 12, [prompt("a"), prompt("b")], [[picture(), picture()], [picture()]])
    first, second = read_rollouts(tmp_path / "iteration-000012.jsonl")
    assert first.images == ("000012-0000-0.png", "000012-0000-1.png")
    assert (second.images, second.id) == ((), "b")
    assert first.completions == prompt().completions
    assert first.question == "How many? 几个"


def test_a_line_of_rollouts_is_plain_json_with_the_verdicts_reasons(tmp_path: Path) -> None:
    put(RolloutLog(tmp_path), 1, [prompt()], [[]])
    row = json.loads((tmp_path / "iteration-000001.jsonl").read_text())
    assert row["completions"][0]["components"]["accuracy"] == {
        "score": 1.0,
        "status": "correct",
        "extracted": "4",
        "reason": "4 equals 4",
    }


def test_rollouts_are_written_every_so_often_and_when_forced(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, every=3)
    for iteration in range(1, 8):
        put(log, iteration, [prompt()], [[]], force=iteration == 6)
    assert list(rollout_files(tmp_path)) == [1, 4, 6, 7]


def test_images_are_opened_only_where_they_are_kept(tmp_path: Path) -> None:
    def explode() -> Image.Image:
        raise AssertionError("opened")

    references = [[picture()], [ImageRef("untouched", explode)]]
    put(RolloutLog(tmp_path, every=2, images=1), 1, [prompt(), prompt()], references)
    put(RolloutLog(tmp_path, every=2, images=1), 2, [prompt()], [[ImageRef("untouched", explode)]])
    assert [file.name for file in (tmp_path / "images").iterdir()] == ["000001-0000-0.png"]


def test_a_large_image_is_kept_as_a_thumbnail_of_512_pixels(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 1024, 3), dtype=np.uint8))
    put(RolloutLog(tmp_path), 1, [prompt()], [[ImageRef("noise", lambda: noise)]])
    file = tmp_path / "images" / "000001-0000-0.jpg"
    with Image.open(file) as image:
        assert image.size == (512, 150)
    assert noise.size == (1024, 300)


def test_an_image_that_no_longer_opens_is_left_out(tmp_path: Path) -> None:
    def gone() -> Image.Image:
        raise DataError("gone")

    put(RolloutLog(tmp_path), 1, [prompt()], [[ImageRef("gone", gone), picture()]])
    assert read_rollouts(tmp_path / "iteration-000001.jsonl")[0].images == ("000001-0000-1.png",)


def test_half_a_surrogate_pair_in_a_completion_is_kept(tmp_path: Path) -> None:
    put(RolloutLog(tmp_path), 1, [prompt(text="a\udc80\u2028\nb")], [[]])
    assert read_rollouts(tmp_path / "iteration-000001.jsonl")[0].completions[0].text == "a\udc80\u2028\nb"


def test_prompts_and_images_of_different_counts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        put(RolloutLog(tmp_path), 1, [prompt(), prompt()], [[]])


def test_rollouts_of_later_iterations_are_dropped_on_resume(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path)
    for iteration in (1, 2, 1_000_000):
        put(log, iteration, [prompt()], [[picture()]])
    log.truncate_after(1)
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == [
        "000001-0000-0.png",
        "iteration-000001.jsonl",
    ]


def test_a_line_that_is_no_rollout_is_named(tmp_path: Path) -> None:
    put(RolloutLog(tmp_path), 1, [prompt()], [[]])
    path = tmp_path / "iteration-000001.jsonl"
    path.write_text(path.read_text() + '{"id": 1}\n')
    with pytest.raises(UserError, match="line 2: not a rollout"):
        read_rollouts(path)


METRICS = {"reward/mean": 0.6251, "accuracy/train": 0.5, "policy/drift": 0.00123, "tokens/per_second": 1234.5}


def shown(**options: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=200, **options), stream  # type: ignore[arg-type]


def test_without_a_terminal_progress_is_a_plain_line_and_not_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("time.monotonic", lambda: seconds)
    console, stream = shown()
    with Progress(10, console=console, plain_seconds=5) as progress:
        for iteration in range(1, 9):
            seconds = iteration * 2.0
            progress.update(iteration, METRICS)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"iteration {n}/10" for n in (1, 4, 7, 8)]
    assert lines[1] == (
        "iteration 4/10  reward 0.625  accuracy 50.0%  drift 0.0012  tokens/s 1,234  0:12 left"
    )


def test_iterations_before_a_resume_do_not_count_for_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("time.monotonic", lambda: seconds)
    with Progress(100, done=90, enabled=False) as progress:
        assert progress.seconds_left() is None
        seconds = 30.0
        progress.update(93, {})
        assert progress.seconds_left() == pytest.approx(70.0)


def test_other_processes_show_nothing() -> None:
    console, stream = shown(force_terminal=True)
    with Progress(10, console=console, enabled=False) as progress:
        progress.update(1, METRICS)
        progress.stage("rollout")
        progress.say("hello")
    assert stream.getvalue() == ""


def test_in_a_terminal_the_stage_and_the_messages_are_shown() -> None:
    console, stream = shown(force_terminal=True)
    with Progress(10, console=console) as progress:
        progress.update(1, METRICS)
        progress.stage("rollout 3/8")
        progress.say("checkpoint [bold]saved")
    text = stream.getvalue()
    assert "rollout 3/8" in text
    assert "checkpoint [bold]saved" in text


def test_rollouts_are_written_while_the_caller_goes_on(tmp_path: Path) -> None:
    opened, go_on = threading.Event(), threading.Event()

    def slow() -> Image.Image:
        opened.set()
        assert go_on.wait(10)
        return Image.new("RGB", (2, 2))

    log = RolloutLog(tmp_path)
    log.write(1, [prompt()], [[ImageRef("slow", slow)]])
    assert opened.wait(10)
    assert not log.path(1).exists()
    go_on.set()
    log.flush()
    assert log.path(1).exists()


def test_a_disk_that_refuses_in_the_background_is_said_at_the_next_chance(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = RolloutLog(tmp_path / "file")
    log.write(1, [prompt()], [[]])
    with pytest.raises(UserError):
        log.flush()
    log.flush()
