"""Rows as other tools write them, each in its published layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data import DataError, Example
from eval.benchmark import Benchmark, Failure, Response
from eval.benchmarks import find_benchmark
from eval.predictions import Predictions, read_file
from rewards import Status
from tests.fakes.scoring import sums, write_lines

DATA = [Example("11", "How many corners?", "6"), Example("12", "Which part?", "B")]


def read(
    folder: Path, *rows: Mapping[str, Any], benchmark: Benchmark | None = None, **more: Any
) -> Predictions:
    more = {"examples": DATA, **more}
    return read_file(write_lines(folder / "a.jsonl", rows), benchmark or sums(), **more)


def texts(found: Predictions) -> list[tuple[str, int, str]]:
    return [(one.id, one.sample, one.text) for one in found.responses if one.failure is None]


def failures(found: Predictions) -> dict[str, str]:
    return {one.id: one.failure.reason for one in found.responses if one.failure is not None}


BOTH = [("11", 0, "six"), ("12", 0, "B")]
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "VLMEvalKit": [
        {"index": 11.0, "question": "How many corners?", "answer": "6", "prediction": "six"},
        {"index": 12.0, "question": "Which part?", "answer": "B", "prediction": "B"},
    ],
    "lmms-eval with the row of the data": [
        {"doc_id": 0, "doc": {"id": "11"}, "target": "6", "resps": [["six"]], "filtered_resps": ["6"]},
        {"doc_id": 1, "doc": {"id": "12"}, "target": "B", "resps": [["B"]], "filtered_resps": ["B"]},
    ],
    "lmms-eval since it leaves the row out": [
        {"doc_id": 0, "input": "How many corners?\n", "target": "6", "filtered_resps": "six"},
        {"doc_id": 1, "input": "Which part?\n", "target": "B", "resps": ["B"], "filtered_resps": "b"},
    ],
    "lm-eval, once per filter": [
        {"doc_id": place, "doc": {"id": name}, "filter": used, "resps": [[text]], "filtered_resps": ["?"]}
        for used in ("strict", "flexible")
        for place, (name, text) in enumerate([("11", "six"), ("12", "B")])
    ],
    "LLaVA": [
        {"question_id": 11, "prompt": "How many corners?", "text": "six", "answer_id": "x", "model_id": "m"},
        {"question_id": 12, "prompt": "Which part?", "text": "B", "answer_id": "y", "model_id": "m"},
    ],
    "a batch of OpenAI": [
        {"custom_id": name, "response": {"body": {"choices": [{"message": {"content": text}}]}}}
        for name, text in (("11", "six"), ("12", "B"))
    ],
}  # fmt: skip


@pytest.mark.parametrize("tool", LAYOUTS)
def test_the_files_of_other_tools_are_read(tmp_path: Path, tool: str) -> None:
    found = read(tmp_path, *LAYOUTS[tool])
    assert texts(found) == BOTH
    assert len(found.warnings) == (tool == "lmms-eval since it leaves the row out")


def test_the_samples_of_a_logged_row_are_numbered(tmp_path: Path) -> None:
    rows = [
        {"doc_id": 0, "doc": {"id": "11"}, "resps": [["p", "q"]], "filtered_resps": ["p"]},
        {"doc_id": 1, "doc": {"id": "12"}, "resps": [["r"], ["s"]], "filtered_resps": ["r", "s"]},
    ]
    assert texts(read(tmp_path, *rows)) == [("11", 0, "p"), ("11", 1, "q"), ("12", 0, "r"), ("12", 1, "s")]


@pytest.mark.parametrize(
    "resps", [[[["-1.5", "False"]], [["-0.5", "True"]]], [["-1.5", "False"], ["-0.5", "True"]], [-1.5, -0.5]]
)
def test_log_likelihoods_are_refused(tmp_path: Path, resps: list[Any]) -> None:
    with pytest.raises(DataError, match="log-likelihoods of the options, not responses"):
        read(tmp_path, {"doc_id": 0, "doc": {"id": "11"}, "resps": resps, "filtered_resps": resps})


def test_a_wrong_order_of_rows_without_ids_is_seen_by_their_prompts(tmp_path: Path) -> None:
    rows = [
        {"doc_id": 0, "input": "Which part?", "filtered_resps": "B"},
        {"doc_id": 1, "input": "How many corners?", "filtered_resps": "six"},
    ]
    assert (
        "in 2 of 2 responses the file's own question is not the data's" in read(tmp_path, *rows).warnings[1]
    )


def test_an_id_of_several_columns_is_joined_by_the_benchmarks_reader(tmp_path: Path) -> None:
    """We-Math's ids are made of ID and key; its own files have the response in `response`."""
    rows = [{"index": 0, "ID": "7", "key": "2steps_1", "prediction": "The answer is B"}]
    found = read(tmp_path, *rows, benchmark=find_benchmark("wemath"), examples=[Example("7/1", "?", "B")])
    assert texts(found) == [("7/1", 0, "The answer is B")]


@pytest.mark.parametrize("value", [None, float("nan"), "nan"])
def test_a_response_of_null_or_nan_is_missing(tmp_path: Path, value: object) -> None:
    found = read(tmp_path, {"id": "11", "response": value}, {"id": "12", "response": "B"})
    assert texts(found) == [("12", 0, "B")]
    assert (found.missing, failures(found)) == ({("11", 0)}, {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "11", "response": None, "error": "429"}, "429"),
        ({"id": "11", "error": {"code": 429}}, "{'code': 429}"),
        ({"id": "11", "response": "Failed to obtain answer via API."}, "Failed to obtain answer via API."),
        ({"id": "11", "response": "!! 504"}, "!! 504"),
    ],
)
def test_a_report_of_a_failure_is_no_response_and_its_reason_is_kept(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    found = read(tmp_path, row, {"id": "12", "response": "B"}, marks=["!!"])
    assert texts(found) == [("12", 0, "B")]
    assert failures(found) == {"11": f"the file reports a failure: {reason}"}
    assert found.missing == {("11", 0)}


def test_a_failure_of_a_result_keeps_its_status_and_text(tmp_path: Path) -> None:
    stored = {"status": "refused", "reason": "the model refused"}
    found = read(tmp_path, {"id": "11", "response": "I cannot", "missing": False, "failure": stored})
    (response,) = found.responses
    assert response.failure == Failure("the model refused", Status.REFUSED, "I cannot")
    assert found.missing == set()


def test_a_row_that_a_result_says_is_missing_stays_missing(tmp_path: Path) -> None:
    row = {"id": "11", "response": "", "missing": True, "score": 0.0, "reason": "no response is stored"}
    found = read(tmp_path, row, {"id": "12", "response": "B"})
    assert (found.missing, failures(found)) == ({("11", 0)}, {})


def test_a_logged_row_without_any_response_is_missing(tmp_path: Path) -> None:
    rows = [
        {"doc_id": 0, "doc": {"id": "11"}, "resps": []},
        {"doc_id": 1, "doc": {"id": "12"}, "resps": ["B"]},
    ]
    found = read(tmp_path, *rows)
    assert texts(found) == [("12", 0, "B")]
    assert len(found.missing) == 1


def test_an_error_beside_a_response_does_not_discard_it(tmp_path: Path) -> None:
    assert texts(read(tmp_path, {"id": "11", "response": "six", "error": "retried"})) == [("11", 0, "six")]


def test_null_in_a_benchmarks_own_format_is_missing(tmp_path: Path) -> None:
    rows = [{"pid": "11", "response": None, "query": "?"}, {"pid": "12", "response": "B", "query": "?"}]
    found = read(tmp_path, *rows, benchmark=find_benchmark("mathvista"))
    assert (texts(found), found.missing) == ([("12", 0, "B")], {("11", 0)})


def test_a_failure_in_mathvistas_own_format_has_no_response_column(tmp_path: Path) -> None:
    rows = [{"pid": "11", "query": "?", "error": "limit"}, {"pid": "12", "response": "B", "query": "?"}]
    found = read(tmp_path, *rows, benchmark=find_benchmark("mathvista"))
    assert texts(found) == [("12", 0, "B")]
    assert failures(found) == {"11": "the file reports a failure: limit"}


def test_a_column_with_null_written_by_pandas_is_read(tmp_path: Path) -> None:
    rows = [
        {"id": "11", "response": "six", "tokens": 12.0},
        {"id": "12", "response": "B", "tokens": float("nan")},
    ]
    assert [one.tokens for one in read(tmp_path, *rows).responses] == [12, None]


def test_columns_are_found_by_the_names_that_the_user_gives(tmp_path: Path) -> None:
    rows = [{"id": "x", "meta": {"key": 11}, "response": "old", "reply": ["six"]}]
    columns = {"id": "meta.key", "response": "reply.0"}
    assert texts(read(tmp_path, *rows, columns=columns)) == [("11", 0, "six")]


def test_an_object_of_texts_by_id_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"11": "six", "12": null}')
    found = read_file(tmp_path / "a.json", sums(), examples=DATA)
    assert (texts(found), found.missing) == ([("11", 0, "six")], {("12", 0)})


def test_a_row_without_a_response_or_an_id_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1 has no column id \(it has: response\)"):
        read(tmp_path, {"response": "x"})
    with pytest.raises(DataError, match=r"a\.jsonl:1: the id is empty"):
        read(tmp_path, {"id": None, "response": "x"}, {"id": "11", "response": "x"})


def test_the_response_of_a_result_is_unchanged(tmp_path: Path) -> None:
    row = {"id": "11", "sample": 0, "response": "6", "extraction": "6", "finished": True, "tokens": 3}
    assert read(tmp_path, row).responses == [Response("11", "6", 0, "6", True, 3)]
