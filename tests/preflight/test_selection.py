"""Selection of rows by the spread of their rewards: by hand, on a tiny policy, resumed; what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from data import Example
from mm_cpgd.config.loading import load_config
from mm_cpgd.errors import UserError
from mm_cpgd.preflight import selection
from mm_cpgd.preflight.selection import RowScores, keep, select_rows

SPREAD = RowScores("a", (1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0))
GRADED = RowScores("b", (0.62, 0.10, 0.55, 0.0, 0.48, 0.3, 0.2, 0.7))


def test_mean_and_deviation_are_those_of_the_samples() -> None:
    assert (SPREAD.mean, SPREAD.deviation**2) == (0.375, pytest.approx(0.234375))
    assert (GRADED.mean, GRADED.deviation**2) == (pytest.approx(0.36875), pytest.approx(0.0574359375))
    assert RowScores("c", ()).deviation == 0


def test_rows_are_kept_by_spread_within_their_task() -> None:
    rows = [
        Example(name, "?", "1", meta={"task": task}) for name, task in zip("abcdef", "qqqggg", strict=True)
    ]
    scores = {"a": (0, 1), "b": (1, 1), "c": (0.9, 1), "d": (0.2, 0.4), "e": (0.1, 0.5), "f": (0, 0)}
    scored = {name: RowScores(name, values) for name, values in scores.items()}

    def kept(least: float, share: float) -> str:
        return "".join(row.id for row in keep(rows, scored, least, share))

    assert kept(0.0, 1.0) == "acde"
    assert kept(0.0, 0.3) == "ae"
    assert kept(0.15, 1.0) == "ae"
    assert kept(0.3, 1.0) == "a"


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    Image.new("RGB", (56, 56), "red").save(tmp_path / "a.png")
    rows = [
        {
            "id": str(number),
            "question": f"How much is {number} + 1?",
            "answer": "1",
            "image": "a.png",
            "note": "x",
        }
        for number in range(5)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def select(yaml: Path, rows: str, output: Path, **options: Any) -> tuple[int, str]:
    stream = io.StringIO()
    config = load_config(yaml, [f"data.train={{path: '{rows}', limit: null}}", "rollout.batch_prompts=2"])
    chosen = {"samples": 4, "least": 0.0, "share": 1.0, **options}
    return select_rows(config, output, Console(file=stream, width=200), **chosen), stream.getvalue()


def test_kept_rows_are_the_rows_of_the_file_with_their_statistics(yaml: Path, rows_file: Path) -> None:
    output = rows_file.with_name("kept.jsonl")
    count, text = select(yaml, str(rows_file), output, share=0.6)
    kept = [json.loads(line) for line in output.read_text().splitlines()]
    assert count == len(kept) == 3
    assert "5 rows, 0 with the same reward in all samples, 3 kept" in text
    for row in kept:
        assert (row["image"], row["note"], row["select_k"]) == ("a.png", "x", 4)
        assert row["select_std"] > 0
    stored = [json.loads(line) for line in rows_file.with_name("kept.jsonl.scores").read_text().splitlines()]
    deviations = {one["id"]: RowScores(one["id"], tuple(one["scores"])).deviation for one in stored}
    assert {row["id"] for row in kept} == set(sorted(deviations, key=lambda name: -deviations[name])[:3])


def test_an_interrupted_selection_resumes_with_the_same_result(
    yaml: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_file.with_name("whole.jsonl")
    select(yaml, str(rows_file), whole)
    scores = whole.with_name("whole.jsonl.scores").read_text().splitlines(keepends=True)
    output = rows_file.with_name("kept.jsonl")
    output.with_name("kept.jsonl.scores").write_text("".join(scores[:2]) + scores[2][:9])
    sampled: list[str] = []
    original = selection._sample

    def counting(config: Any, policy: Any, engine: Any, rows: Any, samples: int) -> Any:
        sampled.extend(row.id for row in rows)
        return original(config, policy, engine, rows, samples)

    monkeypatch.setattr(selection, "_sample", counting)
    select(yaml, str(rows_file), output)
    assert sampled == ["2", "3", "4"]
    sampled.clear()
    select(yaml, str(rows_file), output)
    assert sampled == []
    assert output.read_text() == whole.read_text()
    sampled.clear()
    select(yaml, str(rows_file), output, samples=3)
    assert len(sampled) == 5


def test_what_cannot_be_selected_is_refused(yaml: Path, rows_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 samples"):
        select(yaml, str(rows_file), rows_file.with_name("kept.jsonl"), samples=1)
    with pytest.raises(UserError, match="write it beside the rows"):
        select(yaml, str(rows_file), tmp_path / "other" / "kept.jsonl")
    with pytest.raises(UserError, match="drawn rows are not in a file"):
        select(yaml, "generated:shapes", tmp_path / "kept.jsonl")
