"""MVBench in its published layout, scored by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks.mvbench import benchmark
from tests.fakes.videos import STEP, level, write_video


def write_task(folder: Path, name: str, **values: Any) -> None:
    row = {"question": "What next?", "candidates": ["run", "sit", "eat"], "answer": "sit", **values}
    (folder / "json").mkdir(exist_ok=True)
    (folder / "json" / f"{name}.json").write_text(json.dumps([row]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_task(tmp_path, "action_sequence", video="ZS9XR.mp4", start=1.0, end=2.0)
    write_task(tmp_path, "moving_count", video="v_1.mp4", answer="eat")
    write_task(tmp_path, "episodic_reasoning", video="castle_s01", start=1, end=3)
    for place in ("star/Charades_v1_480/ZS9XR.mp4", "clevrer/video_validation/v_1.mp4"):
        (tmp_path / "video" / place).parent.mkdir(parents=True)
        write_video(tmp_path / "video" / place)
    frames = tmp_path / "video/tvqa/frames_fps3_hq/castle_s01"
    frames.mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (32, 32), (STEP * number,) * 3).save(frames / f"{number + 1:05}.jpg")
    return tmp_path


def test_the_published_files_are_read_with_their_clips(folder: Path) -> None:
    rows = {row.meta["task"]: row for row in benchmark.load(DataSource(str(folder)))}
    assert set(rows) == {"action_sequence", "moving_count", "episodic_reasoning"}
    assert [row.answer for row in rows.values()] == ["B", "C", "B"]
    cut, whole, frames = (
        rows[name].videos[0] for name in ("action_sequence", "moving_count", "episodic_reasoning")
    )
    assert level(next(iter(cut.read([0])))) == 10
    assert cut.timeline().duration == pytest.approx(1.0)
    assert len(whole.timeline()) == 30
    assert [level(image) for image in frames.read(range(6))] == [3, 4, 5, 6, 7, 8]
    assert benchmark.prompt(rows["moving_count"]).startswith("What next?\n(A) run\n(B) sit\n(C) eat\n\n")


def test_the_score_is_the_mean_of_the_tasks(folder: Path) -> None:
    rows = benchmark.load(DataSource(str(folder)))
    texts = ("<answer>B</answer>", "<answer>A</answer>", "<answer>(B) sit</answer>")
    pairs = [
        (row, benchmark.official(row, Response(row.id, text))) for row, text in zip(rows, texts, strict=True)
    ]
    assert [verdict.score for _, verdict in pairs] == [1.0, 0.0, 1.0]
    assert benchmark.metrics is not None
    found = benchmark.metrics(pairs)
    assert found == {"mean_of_tasks": pytest.approx(2 / 3), "mean_of_tasks_groups": 3}
    assert benchmark.groups(rows[0]) == {"task": ["action_sequence"]}


def test_a_missing_video_matters_only_when_it_is_opened(folder: Path) -> None:
    write_task(folder, "state_change", video="gone.mp4")
    (row,) = benchmark.load(DataSource(str(folder), split="state_change"))
    with pytest.raises(DataError, match="does not exist"):
        row.videos[0].timeline()


def test_other_data_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="local copy"):
        benchmark.load(DataSource())
    with pytest.raises(DataError, match="has no task 'running'"):
        benchmark.load(DataSource(str(folder), split="running"))
    write_task(folder, "state_change", video="a.mp4", answer="fly")
    with pytest.raises(DataError, match="none of the candidates"):
        benchmark.load(DataSource(str(folder)))
