"""Files that benchmarks score or accept as submissions: MathVista's output format, and MMMU's answers.

Formats read from github.com/lupantech/MathVista (``results/``, ``evaluation/calculate_score.py``) and
github.com/MMMU-Benchmark/MMMU (``mmmu/README.md``, section "Evaluation Only").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data import Example
from eval.benchmark import DataSource
from eval.benchmarks import find_benchmark
from eval.results import EvalResult
from mm_cpgd.errors import UserError

_MMMU_ID = re.compile(r"(dev|validation|test)_\w+_\d+")
_LETTER = re.compile(r"\(?([A-Z])\)?[.:]?")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Submission:
    """A file to submit, and what its reader should know.

    Attributes:
        content: JSON values.
        notes: one line each.
    """

    content: Mapping[str, Any]
    notes: Sequence[str]


def mathvista_submission(
    result: EvalResult, *, data: str | None = None, split: str | None = None, sample: int = 0
) -> Submission:
    """Return MathVista's output file: the data's rows by ``pid`` with ``response`` and ``extraction``.

    An extraction is an LLM's: one stored with the predictions, or the judge's. Without one it is left to the
    benchmark's ``extract_answer.py``. A question without a response counts as wrong, as in the result.

    Args:
        result: a result on MathVista.
        data: the questions as published; None for the data of the result.
        split: split of the data; None for the result's.
        sample: which sample of each question.

    Raises:
        UserError: another benchmark, or a question that is not in the data.
        DataError: the data cannot be read.
    """
    if result.summary["benchmark"] != "mathvista":
        raise UserError(f"the result is of {result.summary['benchmark']}, not of mathvista")
    settings = result.summary.get("settings", {})
    source = DataSource(data or settings.get("data"), split or settings.get("split"), None)
    examples = {one.id: one for one in find_benchmark("mathvista").load(source)}
    rows = _rows(result, sample)
    absent = [row["id"] for row in rows if row["id"] not in examples]
    if absent:
        raise UserError(f"{absent[0]!r} is not in the data; give those of the result: --data, --split")
    content = {row["id"]: _mathvista_row(examples[row["id"]], row) for row in rows}
    open_ones = sum("extraction" not in one for one in content.values())
    notes = _missing(rows)
    if open_ones:
        notes.append(
            f"{open_ones:,} of {len(content):,} responses have no LLM's extraction yet: run the benchmark's "
            "evaluation/extract_answer.py on the file before calculate_score.py"
        )
    return Submission(content, notes)


def _mathvista_row(example: Example, row: Row) -> dict[str, Any]:
    # The reader of a file adds the key of its rows as "id".
    published = {name: value for name, value in example.meta.items() if name != "id"}
    filled = {**published, "pid": example.id, "response": _response(row)}
    extraction = _extraction(row)
    return filled if extraction is None else {**filled, "extraction": extraction}


def _extraction(row: Row) -> str | None:
    """Return what an LLM extracted, "" for a question without a response, None if nothing was extracted."""
    if row["extraction"] is not None:
        return str(row["extraction"])
    if row.get("missing") or not _response(row):
        return ""
    judged = row["protocols"].get("judge")
    return judged["extracted"] if judged and judged["score"] is not None else None


def mmmu_submission(result: EvalResult, *, sample: int = 0) -> Submission:
    """Return MMMU's answers by id: a letter for multiple choice, the extracted answer for an open question.

    A multiple-choice response that names no option is an empty answer, which is wrong; MMMU's own parser
    guesses an option at random.

    Raises:
        UserError: the ids are not MMMU's.
    """
    rows = _rows(result, sample)
    others = [row["id"] for row in rows if not _MMMU_ID.fullmatch(row["id"])]
    if others:
        raise UserError(
            f"{others[0]!r} is no id of MMMU, such as validation_Accounting_1; export a result of MMMU"
        )
    content = {row["id"]: _mmmu_answer(row) for row in rows}
    notes = _missing(rows)
    empty = sum(not content[row["id"]] for row in rows if row["choices"] and not _lacks_response(row))
    if empty:
        notes.append(f"{empty:,} multiple-choice responses name no option; their answers are empty")
    return Submission(content, notes)


def _mmmu_answer(row: Row) -> str:
    extracted = str(row["extracted"] or "").strip()
    if not row["choices"]:
        return extracted or _response(row)
    letters = [chr(ord("A") + place) for place in range(len(row["choices"]))]
    found = _LETTER.fullmatch(extracted)
    if found and found[1] in letters:
        return found[1]
    same = [letter for letter, text in zip(letters, row["choices"], strict=True) if text == extracted]
    return same[0] if extracted and len(same) == 1 else ""


def _rows(result: EvalResult, sample: int) -> list[Row]:
    rows = [row for row in result.rows if row["sample"] == sample]
    if not rows:
        raise UserError(f"the result has no sample {sample}; the first is 0")
    return rows


def _missing(rows: Sequence[Row]) -> list[str]:
    count = sum(map(_lacks_response, rows))
    return [f"{count:,} of {len(rows):,} questions have no response; they count as wrong"] if count else []


def _lacks_response(row: Row) -> bool:
    return bool(row.get("missing") or row.get("failure"))


def _response(row: Row) -> str:
    """Return the response, "" where something else came in its place, such as a refusal."""
    return "" if _lacks_response(row) else str(row["response"] or "")
