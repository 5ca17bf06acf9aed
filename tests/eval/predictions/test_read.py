"""Stored predictions: plain rows, a benchmark's own format, samples, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data import DataError, Example
from eval.benchmark import Response
from eval.predictions import read_predictions
from eval.results import write_result
from eval.scoring.score import score_responses
from tests.fakes.scoring import sums, write_lines


def read_own(record: Mapping[str, Any]) -> Response:
    """An output format with other names."""
    return Response(str(record["pid"]), record["output"], extraction=record.get("extracted"))


OWN = sums(read=read_own)
PLAIN = sums()


def test_plain_rows_are_read_with_all_optional_columns(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "a.jsonl",
        [
            {"id": 1, "response": "so 4", "extraction": "4", "finished": False, "tokens": 12, "model": "m"},
            {"id": "b", "response": None},
        ],
    )
    assert read_predictions(file, PLAIN) == [Response("1", "so 4", 0, "4", finished=False, tokens=12)]


def test_an_object_by_id_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"7": {"response": "x"}, "8": {"response": "y"}}))
    assert read_predictions(file, PLAIN) == [Response("7", "x"), Response("8", "y")]


def test_a_list_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"id": "7", "response": "x"}]))
    assert read_predictions(file, PLAIN) == [Response("7", "x")]


def test_a_benchmarks_own_format_is_read(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"pid": 3, "output": "x", "extracted": "4"}])
    assert read_predictions(file, OWN) == [Response("3", "x", extraction="4")]


def test_a_benchmarks_own_format_comes_first_where_it_has_the_plain_columns_too(tmp_path: Path) -> None:
    own = sums(read=lambda record: Response(record["id"], record["response"], extraction=record["found"]))
    file = write_lines(tmp_path / "a.jsonl", [{"id": "3", "response": "x", "found": "4"}])
    assert read_predictions(file, own) == [Response("3", "x", extraction="4")]


@pytest.mark.parametrize("more", [{}, {"model": "m"}])
def test_a_benchmark_with_a_format_of_its_own_takes_plain_rows_too(
    tmp_path: Path, more: dict[str, str]
) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"id": "3", "response": "x", **more}])
    assert read_predictions(file, OWN) == [Response("3", "x")]


@pytest.mark.parametrize(
    "row",
    [
        {"response": ["p", "q"]},
        {"responses": ["p", "q"]},
        {"outputs": [["p", "q"]]},
        {"prediction": ["p", "q"]},
    ],
)
def test_a_list_of_responses_is_samples(tmp_path: Path, row: dict[str, object]) -> None:
    found = read_predictions(write_lines(tmp_path / "a.jsonl", [{"id": "a", **row}]), PLAIN)
    assert [(one.sample, one.text) for one in found] == [(0, "p"), (1, "q")]


@pytest.mark.parametrize(
    "row",
    [
        {"response": {"role": "assistant", "content": "p"}},
        {"response": {"choices": [{"message": {"content": "p"}}]}},
        {"choices": [{"message": {"content": "p"}}]},
        {"response": {"message": {"content": "p"}}},
    ],
)
def test_a_stored_reply_is_its_content(tmp_path: Path, row: dict[str, object]) -> None:
    assert read_predictions(write_lines(tmp_path / "a.jsonl", [{"id": "a", **row}]), PLAIN) == [
        Response("a", "p")
    ]


def test_rows_of_the_same_id_are_samples_in_their_order(tmp_path: Path) -> None:
    rows = [{"id": name, "response": text} for name, text in ("ap", "bq", "ar", "bs")]
    found = read_predictions(write_lines(tmp_path / "a.jsonl", rows), PLAIN)
    assert [(one.id, one.sample, one.text) for one in found] == [
        ("a", 0, "p"),
        ("b", 0, "q"),
        ("a", 1, "r"),
        ("b", 1, "s"),
    ]


def test_samples_may_be_numbered_and_incomplete(tmp_path: Path) -> None:
    rows = [{"id": "a", "response": "p", "sample": 1}, {"id": "a", "response": "q", "sample": 0}]
    rows += [{"id": "b", "response": "r", "sample": 1}]
    found = read_predictions(write_lines(tmp_path / "a.jsonl", rows), PLAIN)
    assert [(one.id, one.sample) for one in found] == [("a", 1), ("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": "a"}], r"a\.jsonl:1 has no column response \(it has: id\)"),
        ([{"question": "?"}], "no column id or response"),
        ([{"id": "", "response": "x"}], "the id is empty"),
        ([{"id": "a", "response": [{"text": "x"}]}], "a response is a dict, it must be text"),
        ([{"id": "a", "response": {"parts": []}}], "response is a dict, it must be text"),
        ([{"id": "a", "response": "x", "sample": -1}], "sample is -1, it must be an integer"),
        ([{"id": "a", "response": "x", "tokens": 1.5}], "tokens is 1.5"),
        ([{"id": "a", "response": "x", "finished": "yes"}], "finished is 'yes', it must be true"),
        ([{"id": "a", "response": "x", "sample": 0}] * 2, "1 responses occur twice, first id 'a' sample 0"),
        (
            [{"id": "a", "response": "x", "sample": 0}, {"id": "b", "response": "x"}],
            r"some rows have a `sample` and some have none, first a\.jsonl:2",
        ),
        (
            [{"id": name, "response": text} for name, text in ("aw", "bx", "cy", "bz")],
            "id 'b' occurs 2 times, most ids 1 .*remove the copies, or number",
        ),
    ],
)
def test_a_mistake_in_the_rows_is_one_message(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_predictions(write_lines(tmp_path / "a.jsonl", rows), PLAIN)


def test_rows_in_neither_format_are_reported_with_both(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"pid": 3}])
    with pytest.raises(
        DataError, match=r"a\.jsonl:1 is neither in sums's output format \(no column 'output'\)"
    ):
        read_predictions(file, OWN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("[]\n", "one JSON list"),
        ('{"id" 1}\n', r"a\.jsonl:1: not JSON"),
    ],
)
def test_a_file_without_rows_or_with_a_broken_one_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=says):
        read_predictions(file, PLAIN)


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"predictions file .*gone\.jsonl does not exist"):
        read_predictions(tmp_path / "gone.jsonl", PLAIN)


def test_the_rows_of_a_result_are_a_predictions_file(tmp_path: Path) -> None:
    answers = [Response("a", "2 + 2 is four", extraction="4", finished=True, tokens=3)]
    rows = score_responses(sums(), [Example("a", "2 + 2?", "4")], answers, ["official"])
    write_result(tmp_path, sums(), rows, {})
    assert read_predictions(tmp_path / "rows.jsonl", sums()) == answers
