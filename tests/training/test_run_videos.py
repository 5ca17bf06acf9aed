"""Runs on rows with videos: training, its log and page, resuming, fine-tuning, and quarantined files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mm_cpgd.report.page import write_report
from mm_cpgd.tracking.rollouts import read_rollouts, rollout_files
from tests.fakes import training_runs
from tests.fakes.videos import write_video
from tests.paths import ROOT

Rows = Callable[[Path], list[dict[str, Any]]]
MOTION = [
    "data.train={path: 'generated:motion', limit: 8, seed: 1}",
    "data.eval=null",
    "training.iterations=2",
]


WATCHING = [
    *MOTION,
    f"rollout.environment.name={ROOT}/tests/fakes/environments.py:Watching",
    "rollout.environment.scores={seen: 1.0}",
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


def test_a_run_on_videos_learns_logs_frames_and_shows_them(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    training_runs.run(yaml, MOTION)
    assert [row["optimizer/skipped"] for row in read_rows(tmp_path / "run")[-2:]] == [0.0, 0.0]
    (first, *others) = read_rollouts(rollout_files(tmp_path / "run" / "rollouts")[1])
    assert len(first.images) == 3
    assert not any(one.images for one in others)
    assert all((tmp_path / "run" / "rollouts" / "images" / name).is_file() for name in first.images)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 3


def test_a_run_with_and_without_shared_prefix_is_the_same(yaml: Path, tmp_path: Path) -> None:
    for shared in ("true", "false"):
        output = [
            f"rollout.shared_prefix={shared}",
            f"output={tmp_path / shared}",
            "training.learning_rate=1e-5",
        ]
        training_runs.run(yaml, [*MOTION, *output])
    one, other = weights(tmp_path / "true"), weights(tmp_path / "false")
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-5)


def test_a_resumed_run_on_videos_is_the_run_that_never_stopped(yaml: Path, tmp_path: Path) -> None:
    training_runs.run(yaml, [*MOTION, f"output={tmp_path / 'whole'}"])
    training_runs.run(yaml, [*MOTION, "training.iterations=1"])
    training_runs.run(yaml, MOTION, resume=True)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_conversations_about_videos_survive_a_resume(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    training_runs.run(yaml, [*WATCHING, f"output={tmp_path / 'whole'}"])
    rows = read_rows(tmp_path / "whole")
    assert all(row["conversation/images"] > 0 for row in rows)
    assert all(row["conversation/failed"] == row["optimizer/skipped"] == 0 for row in rows)
    training_runs.run(yaml, [*WATCHING, "training.iterations=1"])
    training_runs.run(yaml, WATCHING, resume=True)
    assert read_rows(tmp_path / "run")[-1]["policy/drift"] == pytest.approx(
        rows[-1]["policy/drift"], rel=1e-6
    )
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_processes_have_the_conversations_about_videos_of_one(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    trained = "policy.freeze_vision=false"
    training_runs.run(yaml, [*WATCHING, trained, f"output={tmp_path / 'one'}"])
    assert training_runs.in_two_processes(yaml, [*WATCHING, trained, f"output={tmp_path / 'two'}"]) == [0, 0]
    one, two = (read_rows(tmp_path / name) for name in ("one", "two"))
    for mine, other in zip(two, one, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6, nan_ok=True)


def test_rows_with_unusable_videos_are_quarantined_and_the_others_train(yaml: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "good.mp4")
    (tmp_path / "short.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:-300])
    names = ["good"] * 4 + ["short", "gone"]
    rows = [
        {"id": str(number), "question": "<video>How long?", "answer": "3", "video": f"{name}.mp4"}
        for number, name in enumerate(names)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training_runs.run(
        yaml, [*MOTION, f"data.train={{path: {tmp_path}/rows.jsonl, limit: null}}", "data.max_bad_share=0.5"]
    )
    bad = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [row["id"] for row in bad] == ["4", "5"]
    assert "cannot be read" in bad[0]["reason"]
    assert "does not exist" in bad[1]["reason"]
