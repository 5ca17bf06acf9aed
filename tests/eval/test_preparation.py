"""Preparation of an evaluation: settings that contradict each other, questions without images, examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.preparation import prepare
from eval.settings import Settings
from mm_cpgd.errors import UserError
from tests.fakes.scoring import OWN_BENCHMARK, write_lines

PICTURED = """
from pathlib import Path
from data import Example, image_ref, read_rows
from eval.benchmark import Benchmark, verified

def load(source):
    rows = [row.values for row in read_rows(source.path)]
    images = [(image_ref(row["image"], folder=Path(".")),) for row in rows]
    return [Example(row["id"], row["question"], row["answer"], *own) for row, *own in zip(rows, images)]

benchmark = Benchmark("own", "nowhere", load, lambda row: row.question, verified)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(PICTURED)
    Path("sums.py").write_text(OWN_BENCHMARK)
    Image.new("RGB", (4, 4)).save("a.png")
    rows = [{"id": f"q{i}", "question": f"<image>{i}?", "answer": "3", "image": "a.png"} for i in range(3)]
    write_lines(Path("rows.jsonl"), [*rows, {**rows[0], "id": "none", "answer": " "}])
    write_lines(Path("sums.jsonl"), [{"id": "s", "question": "1 + 0?", "answer": "1", "digits": 1}])
    return {"model": "m", "benchmark": "own.py", "data": "rows.jsonl"}


def test_text_only_leaves_out_images_and_names_the_result(settings: dict[str, Any]) -> None:
    found = prepare(Settings(**settings, text_only=True, shots=1, shots_data="rows.jsonl"))
    assert [(one.question, one.images) for one in found.examples[:2]] == [("0?", ()), ("1?", ())]
    assert all(not one.images for one in found.shots.examples)
    assert found.folder(Path("out")) == Path("out/own-text-only")
    assert prepare(Settings(**settings)).folder(Path("out"), "blank") == Path("out/own-blank")


def test_examples_without_an_answer_are_not_shown(settings: dict[str, Any]) -> None:
    found = prepare(Settings(**settings, shots=2, shots_data="rows.jsonl"))
    assert [one.id for one in found.shots.examples] == ["q0", "q1", "q2"]
    assert [one.id for one in found.shots.before(found.examples[0])] == ["q1", "q2"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shots": 1}, "--shots and --shots-data go together"),
        ({"shots_data": "rows.jsonl"}, "--shots and --shots-data go together"),
        ({"shots": -1, "shots_data": "rows.jsonl"}, "--shots -1"),
        ({"text_only": True, "controls": ("blank",)}, "--text-only leaves no image"),
        ({"repetition_penalty": 1.1}, "--repetition-penalty"),
        ({"tensor_parallel": 2}, "--tensor-parallel is for --engine vllm"),
        ({"tensor_parallel": 2, "engine": "vllm", "endpoint": "http://a/v1"}, "--tensor-parallel is for"),
        ({"prompt": "nothing"}, "--prompt 'nothing'"),
        ({"force_answer": ""}, "--force-answer"),
        ({"protocols": ("judge",)}, "the protocol judge needs a judge"),
        ({"benchmark": "sums.py", "data": "sums.jsonl", "text_only": True}, "omit --text-only"),
    ],
)
def test_settings_that_cannot_be_carried_out_are_refused(
    settings: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises((UserError, ValueError), match=says):
        prepare(Settings(**{**settings, **changes}))
