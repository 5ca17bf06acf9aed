"""Runs in which rules fail, pictures vanish, or nothing is learned."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from data import ImageRef
from mm_cpgd.errors import RunEnded
from rewards import RuleError
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
NO_EVALUATION = ("data.eval=null",)


def test_a_run_without_an_optimizer_step_ends_with_the_reason_and_keeps_its_results(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    rules = f"rewards=[{{rule: '{tmp_path}/rules.py:never'}}]"
    with pytest.raises(RunEnded, match="without a single optimizer step: no completion could be"):
        trainer_jobs.run(yaml, [rules, "training.iterations=1"])
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()
    before, row = read_rows(tmp_path / "run")
    assert row["reward/failed"] == row["reward/unscored"] == 1
    assert row["reward/mean"] is None
    assert (before["eval/accuracy"], before["eval/unscored"]) == (None, 4.0)


def test_a_rule_that_fails_on_everything_ends_the_run_with_its_traceback(yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def broken(completion, example):\n    return example.gold\n")
    for timeout in ("20", "null"):
        rules = f"rewards=[{{rule: '{tmp_path}/broken.py:broken', timeout: {timeout}}}]"
        for options in (NO_EVALUATION, ()):
            with pytest.raises(RuleError, match=r"(?s)scored no completion.*return example\.gold.*Attribute"):
                trainer_jobs.run(yaml, [rules, *options], overwrite=True)


def test_a_rule_that_breaks_later_leaves_a_checkpoint_of_what_was_learned(yaml: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    (tmp_path / "broken.py").write_text(
        "import pathlib\n"
        "def broken(completion, example):\n"
        f"    if pathlib.Path({str(flag)!r}).exists(): raise ValueError('the judge is down')\n"
        "    return len(completion) / 100\n"
    )
    rules = f"rewards=[{{rule: '{tmp_path}/broken.py:broken'}}]"
    options = [rules, *NO_EVALUATION, "checkpoint.every=0"]
    update = patch("mm_cpgd.training.trainer.Progress.update", lambda *_: flag.touch())
    with update, pytest.raises(RuleError, match="the judge is down"):
        trainer_jobs.run(yaml, options)
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]
    flag.unlink()
    assert "resumed after iteration 1 of 3" in trainer_jobs.run(yaml, options, resume=True)[1]


@pytest.fixture
def pictures(tmp_path: Path, noise_image: Callable[..., ImageRef]) -> list[Path]:
    """Files of a data set ``rows.jsonl`` with one picture and one question in each row."""
    files = [tmp_path / f"{number}.png" for number in range(8)]
    rows = []
    for number, file in enumerate(files):
        noise_image(56, 56).open().save(file)
        row = {"id": f"p{number}", "question": f"Colour {number}?", "answer": "1", "solution": "It is 1."}
        rows.append(json.dumps({**row, "image": file.name}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    return files


def test_a_picture_that_vanishes_costs_its_row_and_is_named_once(
    yaml: Path, tmp_path: Path, read_rows: Rows, pictures: list[Path], ready_workers: None
) -> None:
    options = [f"data.train={{path: {tmp_path}/rows.jsonl}}", f"data.eval={{path: {tmp_path}/rows.jsonl}}"]

    def vanish(*_: object) -> None:
        pictures[2].unlink(missing_ok=True)
        pictures[5].write_bytes(b"no image any more")

    for prefetch in ("rollout.prefetch=false", "rollout.prefetch=true", "data.workers=1"):
        with patch("mm_cpgd.training.trainer.Progress.update", vanish):
            _, output = trainer_jobs.run(
                yaml,
                [
                    *options,
                    prefetch,
                    "evaluation.every=1",
                    f"output={tmp_path / prefetch}",
                ],
            )
        rows = read_rows(tmp_path / prefetch)
        lost = [row.get("data/lost") for row in rows]
        # Four of eight prompts an iteration: both are drawn in the second pair of iterations.
        assert lost[1] == 0
        assert sum(lost[1:]) in (1, 2)
        assert all(row["reward/unscored"] == 0 for row in rows[1:])
        assert [row.get("eval/lost") for row in rows] == [None, None, 1.0, 1.0]
        assert rows[-1]["eval/n"] == 3
        assert output.count("held-out row 'p2'") == 1
        assert re.search(r"row 'p[25]' \(.*\) is left out: image", output)
        noise = pictures[0].read_bytes()
        for file in pictures:
            file.write_bytes(noise)


def test_pictures_that_all_vanish_end_the_run_with_a_checkpoint(
    yaml: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    options = [f"data.train={{path: {tmp_path}/rows.jsonl}}", *NO_EVALUATION, "checkpoint.every=0"]

    def vanish(*_: object) -> None:
        for file in pictures:
            file.unlink(missing_ok=True)

    update = patch("mm_cpgd.training.trainer.Progress.update", vanish)
    with update, pytest.raises(RunEnded, match=r"none of the 4 rows .* can be read: row .*--resume"):
        trainer_jobs.run(yaml, options)
    assert (tmp_path / "run" / "checkpoints" / "step-1").is_dir()


def test_fine_tuning_goes_on_without_a_picture_that_vanished(
    yaml: Path, tmp_path: Path, read_rows: Rows, pictures: list[Path]
) -> None:
    options = [f"data.train={{path: {tmp_path}/rows.jsonl}}", "data.eval=null", "sft.steps=4", "sft.batch=4"]
    options.append("rollout.max_new_tokens=60")
    with patch("mm_cpgd.training.trainer.Progress.update", lambda *_: pictures[3].unlink(missing_ok=True)):
        _, output = trainer_jobs.run(yaml, options, imitate=True)
    assert len(read_rows(tmp_path / "run")) == 4
    assert "row 'p3'" in output
