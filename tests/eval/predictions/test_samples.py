"""Sample numbers: written twice, repeated after a failure, missing numbers."""

from __future__ import annotations

import pytest

from data import DataError
from eval.benchmark import Response
from eval.predictions.records import Record
from eval.predictions.samples import numbered

LONG = "Because of the angles, the answer is B. " * 4


def record(name: str, text: str | None, sample: int | None = None) -> Record:
    response = Response(name, text or "", sample or 0)
    return Record("a:1", response, numbered=sample is not None, missing=text is None)


def found(records: list[Record]) -> list[tuple[str, int, str | None]]:
    return [
        (one.response.id, one.response.sample, None if one.missing else one.response.text)
        for one in numbered(records, "a")[0]
    ]


def warnings(records: list[Record]) -> str:
    return "\n".join(numbered(records, "a")[1])


def test_copies_with_the_same_text_are_dropped_with_a_warning() -> None:
    twice = [record(name, text) for name, text in [("a", "x"), ("b", "y")] * 2]
    assert found(twice) == [("a", 0, "x"), ("b", 0, "y")]
    assert "2 of 2 ids occur several times with the same text, first 'a'" in warnings(twice)


def test_a_part_that_was_written_twice_is_no_error() -> None:
    assert found([record("a", "x"), record("b", "y"), record("a", "x")]) == [("a", 0, "x"), ("b", 0, "y")]


def test_one_row_of_each_id_gives_no_warning() -> None:
    assert warnings([record("a", "x"), record("b", "x")]) == ""


def test_different_texts_are_samples() -> None:
    rows = [record("a", "x"), record("a", "y"), record("b", "z"), record("b", "z")]
    assert found(rows) == [("a", 0, "x"), ("a", 1, "y"), ("b", 0, "z"), ("b", 1, "z")]


def test_samples_that_are_mostly_the_same_long_text_give_a_warning() -> None:
    rows = [record(name, LONG) for name in "aabbcc"] + [record("d", "x"), record("d", "y")]
    assert len(found(rows)) == 8
    assert "3 of 4 ids have the same text in every sample, first 'a'" in warnings(rows)


@pytest.mark.parametrize("rows", [[None, "x"], ["x", None]])
def test_the_repetition_of_a_failed_request_takes_its_place(rows: list[str | None]) -> None:
    assert found([record("b", "y"), *(record("a", text) for text in rows)]) == [("b", 0, "y"), ("a", 0, "x")]


def test_a_failed_request_that_is_repeated_leaves_the_samples_of_others() -> None:
    rows = [record("a", None), record("a", "x"), record("a", "y"), record("b", "z"), record("b", "w")]
    assert found(rows) == [("a", 0, "x"), ("a", 1, "y"), ("b", 0, "z"), ("b", 1, "w")]


def test_a_failed_sample_keeps_its_number() -> None:
    rows = [record("a", None), record("a", "x"), record("b", "z"), record("b", "w")]
    assert found(rows) == [("a", 0, None), ("a", 1, "x"), ("b", 0, "z"), ("b", 1, "w")]


def test_a_sample_number_that_no_row_has_is_named() -> None:
    assert "no response has the sample number 2, though 3 occurs" in warnings(
        [record("a", "x", sample) for sample in (0, 1, 3)]
    )


def test_samples_numbered_from_one_are_complete() -> None:
    assert warnings([record("a", "x", sample) for sample in (1, 2, 3)]) == ""


def test_the_samples_that_single_ids_lack_are_counted_and_the_first_is_named() -> None:
    rows = [record("a", "x", 0), record("a", "x", 1), record("b", "x", 1), record("c", "x", 1)]
    assert "2 of 6 samples are not in the file, first sample 0 of id 'b'" in warnings(rows)


def test_a_number_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DataError, match="1 responses occur twice, first id 'a' sample 1"):
        numbered([record("a", "x", 1), record("a", "y", 1)], "a")
