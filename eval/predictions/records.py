"""Conversion of a file's row to responses: plain, in a benchmark's own format, or with a list of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data import DataError
from data.readers import RawRow
from eval.benchmark import DECLINED, Benchmark, Failure, Response
from eval.predictions.cells import (
    as_text,
    as_truth,
    as_whole,
    is_absent,
    is_failure,
    without_nan,
)
from eval.predictions.columns import NEEDED, PLAIN, POSITION, Columns, value_of
from rewards import Status
from rewards.messages import short

# Begins the reason of a failure, before what the file says.
REPORTED = "the file reports a failure"
_UNREADABLE = (DataError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Record:
    """A response as the file has it, or its note that there is none.

    Attributes:
        where: place in the file, for messages.
        response: its ``text`` is empty if the response is missing; it has a ``failure`` if the file says why.
        numbered: the file has its sample number.
        missing: the file has no response, and is no result that keeps failures apart from missing responses.
        question: the question's text in the file, None if it has none.
        answer: the gold answer in the file, None if it has none.
        position: number of the question's row in the data, if the file has no ids.
    """

    where: str
    response: Response
    numbered: bool = False
    missing: bool = False
    question: str | None = None
    answer: str | None = None
    position: int | None = None


@dataclass(frozen=True)
class Layout:
    """Layout of a file's rows.

    Attributes:
        benchmark: its own output format is tried first, unless a row is plain or columns are named.
        columns: the file's columns of each field.
        named: the user named columns.
        marks: further beginnings of texts that report a failure.
    """

    benchmark: Benchmark
    columns: Columns
    named: bool = False
    marks: Sequence[str] = ()

    def records(self, row: RawRow) -> list[Record]:
        """Return the responses of a row. Raises ``DataError`` if it cannot be read."""
        if row.error:
            raise DataError(f"{row.where}: {row.error}")
        values = without_nan(row.values)
        response, refused = self._own(values)
        if response is None:
            texts = self._texts(values, row.where, refused)
            response = self._foreign(values, row.where)
        else:
            absent = not response.text and not isinstance(value_of(values, self.columns, "response"), str)
            texts = [None if absent else response.text]
        sample = as_whole(value_of(values, self.columns, "sample"), "sample", row.where)
        question = value_of(values, self.columns, "question")
        record = Record(
            row.where, response, numbered=sample is not None or len(texts) > 1,
            question=question if isinstance(question, str) else None,
            answer=_gold(value_of(values, self.columns, "answer"), row.where),
            position=None if response.id else as_whole(values.get(POSITION), POSITION, row.where),
        )  # fmt: skip
        return [
            self._checked(record, text, response.sample + number if sample is None else sample, values)
            for number, text in enumerate(texts)
        ]

    def _own(self, values: Mapping[str, Any]) -> tuple[Response | None, str]:
        """Return a row of the benchmark's own output format, else None and why it is none."""
        read, plain = self.benchmark.read, {"id", "response"} <= values.keys()
        if read is None or self.named or (plain and values.keys() <= set(PLAIN)):
            return None, ""
        try:
            return read(values), ""
        except _UNREADABLE as error:
            return None, f"no column {error}" if isinstance(error, KeyError) else str(error)

    def _texts(self, values: Mapping[str, Any], where: str, refused: str) -> list[str | None]:
        """Return the response, None if it is missing; of a list every sample."""
        if not self.columns["response"] and not self.columns["error"]:
            self._raise_no_column(values, where, refused)
        value = value_of(values, self.columns, "response")
        if isinstance(value, list):
            return [as_text(one, "a response", where) for one in _samples(value, where)] or [None]
        return [as_text(value, "response", where)]

    def _raise_no_column(self, values: Mapping[str, Any], where: str, refused: str) -> None:
        if refused:
            raise DataError(
                f"{where} is neither in {self.benchmark.name}'s output format ({refused}) nor plain: {NEEDED}"
            )
        ids = self.columns["id"] or POSITION in values
        there = ", ".join(map(str, list(values)[:12])) or "none"
        raise DataError(
            f"{where} has no column {'response' if ids else 'id or response'} (it has: {there}); {NEEDED}"
        )

    def _foreign(self, values: Mapping[str, Any], where: str) -> Response:
        """Return a response without its text, with an empty id if the row has only its position."""
        own = self._with_own_id(values)
        if own is not None:
            return own
        name = value_of(values, self.columns, "id")
        if is_absent(name) and not self.columns["id"]:
            if POSITION not in values:
                there = ", ".join(map(str, list(values)[:12]))
                raise DataError(f"{where} has no column id (it has: {there}); {NEEDED}")
            name = ""
        elif is_absent(name) or not str(name).strip():
            raise DataError(f"{where}: the id is empty; use the question's id from the data")
        return Response(
            id=(as_text(name, "id", where) or "").strip(),
            text="",
            extraction=as_text(value_of(values, self.columns, "extraction"), "extraction", where),
            finished=as_truth(value_of(values, self.columns, "finished"), "finished", where),
            tokens=as_whole(value_of(values, self.columns, "tokens"), "tokens", where),
            forced=values.get("forced") is True,
        )

    def _with_own_id(self, values: Mapping[str, Any]) -> Response | None:
        """Return what the benchmark reads of a row that another tool wrote from the benchmark's data.

        A benchmark's id may be made of several columns, such as We-Math's.
        """
        if self.benchmark.read is None or self.named:
            return None
        doc = values.get("doc")
        if {"id", "response"} <= values.keys():
            return None
        row = {**(doc if isinstance(doc, Mapping) else {}), **values, "response": "", "model_answer": ""}
        try:
            return self.benchmark.read(row)
        except _UNREADABLE:
            return None

    def _checked(self, record: Record, text: str | None, sample: int, values: Mapping[str, Any]) -> Record:
        """Return the record with its text, or as missing with the reason that the file gives."""
        if (stored := _stored_failure(values)) is not None:
            response = replace(record.response, text=stored.text, sample=sample, failure=stored)
            return replace(record, response=response, missing=values.get("missing") is True)
        if values.get("missing") is True:
            return self._absent(record, sample, None)
        if text is None and record.response.extraction is None:
            return self._absent(record, sample, value_of(values, self.columns, "error"))
        if text is not None and is_failure(text, self.marks):
            return self._absent(record, sample, text)
        return replace(record, response=replace(record.response, text=text or "", sample=sample))

    def _absent(self, record: Record, sample: int, failure: Any) -> Record:
        why = None if failure in (None, "", False) else short(str(failure).strip(), 200)
        reported = None if why is None else Failure(f"{REPORTED}: {why}")
        response = replace(record.response, text="", sample=sample, failure=reported)
        return replace(record, response=response, missing=True)


def _gold(value: Any, where: str) -> str | None:
    """Return a gold answer as text; None if there is none, or several."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    text = as_text(one, "answer", where) if isinstance(one, (str, int, float)) else None
    return (text or "").strip() or None


def _stored_failure(values: Mapping[str, Any]) -> Failure | None:
    """Return why a row of an evaluation's rows.jsonl has no response, None if it has one."""
    found = values.get("failure")
    if not isinstance(found, Mapping):
        return None
    known = {one.value: one for one in (Status.NOT_ANSWERED, *DECLINED)}
    status = known.get(str(found.get("status")), Status.NOT_ANSWERED)
    return Failure(str(found.get("reason") or ""), status, str(values.get("response") or ""))


def _samples(value: list[Any], where: str) -> list[Any]:
    """Return the samples of a list, or of the lists of the requests that a task sends for a question."""
    flat = [one for part in value for one in (part if isinstance(part, list) else [part])]
    if any(isinstance(one, (list, float)) for one in flat) or _are_likelihoods(value):
        raise DataError(
            f"{where}: log-likelihoods of the options, not responses; score this task where it was evaluated"
        )
    return flat


def _are_likelihoods(value: list[Any]) -> bool:
    """Return whether the responses are pairs of a log-likelihood and whether it is the greedy one."""
    pairs = [one for one in value if isinstance(one, list) and len(one) == 2]
    return 0 < len(pairs) == len(value) and all(str(one[1]) in ("True", "False") for one in pairs)
