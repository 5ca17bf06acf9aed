"""Values as pandas and JSON write them, ids as spreadsheets change them, texts that report a failure."""

from __future__ import annotations

import math

import pytest

from data import DataError
from eval.predictions.cells import (
    as_text,
    as_truth,
    as_whole,
    canonical_id,
    is_absent,
    is_failure,
    without_nan,
)


@pytest.mark.parametrize("value", [None, math.nan, "nan", "NaN", " nan\n"])
def test_null_and_nan_are_absent_also_as_a_text(value: object) -> None:
    assert is_absent(value)


@pytest.mark.parametrize("value", ["", 0, False, "none", "None", "banana", "the nan", math.inf])
def test_other_values_are_not_absent(value: object) -> None:
    assert not is_absent(value)


def test_nan_becomes_none_at_every_depth() -> None:
    assert without_nan({"a": math.nan, "b": {"c": [math.nan, "x"]}}) == {"a": None, "b": {"c": [None, "x"]}}


@pytest.mark.parametrize(
    ("value", "text"), [(12.0, "12"), (12.5, "12.5"), (12, "12"), ("12.0", "12.0"), (1e300, "1e+300")]
)
def test_a_number_is_written_as_pandas_read_it(value: object, text: str) -> None:
    assert as_text(value, "response", "a:1") == text


@pytest.mark.parametrize(
    ("value", "number"),
    [(12.0, 12), ("12", 12), ("12.0", 12), (0, 0), (math.nan, None), ("", None), (None, None)],
)
def test_a_whole_number_is_read_from_a_column_of_floats_or_texts(value: object, number: int | None) -> None:
    assert as_whole(value, "tokens", "a:1") == number


@pytest.mark.parametrize("value", [1.5, -1, True, "many", "1e3", "9" * 400, math.inf, [1]])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"a:1: tokens is .*an integer of at least 0"):
        as_whole(value, "tokens", "a:1")


@pytest.mark.parametrize(
    ("value", "truth"),
    [(True, True), (1.0, True), ("False", False), (0, False), (math.nan, None), ("", None)],
)
def test_a_truth_value_is_read_from_a_column_of_floats_or_texts(value: object, truth: bool | None) -> None:
    assert as_truth(value, "finished", "a:1") is truth


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ("11.0", "11"),
        (11.0, "11"),
        (" 11 ", "11"),
        ("0011", "11"),
        ("0", "0"),
        ("1.50", "1.50"),
        ("a-1", "a-1"),
    ],
)
def test_an_id_is_compared_without_what_spreadsheets_change(value: object, same: str) -> None:
    assert canonical_id(value) == same


@pytest.mark.parametrize(
    "text",
    [
        "Failed to obtain answer via API.",
        "Failed to obtain answer via API. : Failed with all possible conversation turns.",
        "Failed to obtain answer: <class 'RuntimeError'> out of memory",
        "Fail to obtain answer via API.",
        "[LMMS_EVAL_REQUEST_FAILED after 5 retries] timeout",
        "[LMMS_EVAL_BUDGET_EXCEEDED]",
        "[ERROR] Unknown",
        "Error code: 429 - {'error': 'slow down'}",
        "Connection error.",
        "Request timed out.",
    ],
)
def test_the_marks_of_toolkits_and_clients_report_a_failure(text: str) -> None:
    assert is_failure(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Connection error. The answer is B",
        "He failed to obtain an answer.",
        "An [ERROR] in the figure",
        "B",
    ],
)
def test_a_response_that_mentions_a_failure_is_a_response(text: str) -> None:
    assert not is_failure(text)


def test_a_further_mark_is_compared_with_the_beginning() -> None:
    assert is_failure("!! 504", ["!!"])
    assert not is_failure("504 !!", ["!!"])
