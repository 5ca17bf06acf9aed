"""Result folders: written, read back, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data import Example, ImageRef
from eval.benchmark import Response
from eval.results import read_result, write_result
from eval.scoring.score import score_responses
from mm_cpgd.errors import UserError
from tests.fakes.scoring import example, scored, sums

FOUR = [example("a", level=1), example("b", level=10), example("c", level=2), example("d", level=2)]


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    image = ImageRef("images/1.jpg", lambda: pytest.fail("scoring opened an image"))
    question = Example("a", "2 + 2?\u2028", "4", (image,), choices=("4", "5"), meta={"level": 3})
    responses = [Response("a", "it is 4", extraction="4", finished=True, tokens=3)]
    rows = score_responses(sums(), [question], responses, ["official", "verifier"])
    written = write_result(tmp_path / "new" / "result", sums(), rows, {"data": "x"}, flags=["beware"])
    result = read_result(tmp_path / "new" / "result")
    assert result.summary == json.loads(json.dumps(written))
    assert (written["settings"], written["flags"]) == ({"data": "x"}, ["beware"])
    (row,) = result.rows
    assert list(row["protocols"]) == ["official", "verifier"]
    assert row["protocols"]["official"] == {
        name: row[name] for name in ("extracted", "score", "reason", "status")
    }
    assert {name: value for name, value in row.items() if name not in ("protocols", "reason")} == {
        "id": "a",
        "sample": 0,
        "extracted": "4",
        "score": 1.0,
        "status": "correct",
        "question": "2 + 2?\u2028",
        "answer": "4",
        "choices": ["4", "5"],
        "response": "it is 4",
        "extraction": "4",
        "missing": False,
        "failure": None,
        "groups": {"level": ["3"]},
        "images": ["images/1.jpg"],
        "finished": True,
        "tokens": 3,
    }


def test_a_lone_surrogate_in_a_response_can_be_written(tmp_path: Path) -> None:
    write_result(tmp_path, sums(), scored({"a": "it is \ud83d 4"}, FOUR[:1]), {})
    assert read_result(tmp_path).rows[0]["response"] == "it is ? 4"


def test_a_result_is_written_over_another_and_leaves_nothing_else(tmp_path: Path) -> None:
    for answers in ({"a": "4", "b": "4"}, {"a": "5"}):
        write_result(tmp_path, sums(), scored(answers, FOUR[: len(answers)]), {})
    assert [row["response"] for row in read_result(tmp_path).rows] == ["5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "summary.json"]


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_result(tmp_path / "file", sums(), scored({"a": "4"}, FOUR[:1]), {})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "not a result folder: it has no summary.json"),
        ({"summary.json": "{}"}, "it has no rows.jsonl"),
        ({"summary.json": "{", "rows.jsonl": ""}, "is damaged"),
        ({"summary.json": "{}", "rows.jsonl": "{"}, "is damaged"),
    ],
)
def test_a_folder_without_a_complete_result_is_refused(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=says):
        read_result(tmp_path)


def test_a_folder_of_results_names_those_that_it_contains(tmp_path: Path) -> None:
    write_result(tmp_path / "sums", sums(), scored({"a": "4"}, FOUR[:1]), {})
    with pytest.raises(UserError, match=f"it contains {tmp_path / 'sums'}"):
        read_result(tmp_path)
