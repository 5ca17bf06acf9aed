"""Scoring of stored predictions into a result folder (``mm-cpgd score``). No model, no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import DataError, Example
from eval.benchmark import Benchmark, DataSource, Response, ScoredRow
from eval.benchmarks import find_benchmark
from eval.predictions import Predictions, read_file
from eval.results import (
    SUMMARY,
    EvalResult,
    data_fingerprint,
    file_fingerprint,
    package_versions,
    read_result,
    write_result,
)
from eval.scoring.protocols import checked_protocols, judge_rules
from eval.scoring.score import Progress, score_responses, silent, unmatched_ids
from mm_cpgd.errors import UserError

if TYPE_CHECKING:
    from eval.scoring.judge import Judge


@dataclass(frozen=True)
class StoredPredictions:
    """Stored predictions and the questions to score them on, loaded and checked.

    Attributes:
        benchmark: found by its name.
        examples: the questions.
        responses: the predictions.
        protocols: the first one is the headline protocol.
        settings: to be stored with the result.
        flags: one line for each mismatch between questions and predictions.
        missing: ids and sample numbers that the file has without a response.
    """

    benchmark: Benchmark
    examples: Sequence[Example]
    responses: Sequence[Response]
    protocols: Sequence[str]
    settings: Mapping[str, Any]
    flags: Sequence[str]
    missing: Collection[tuple[str, int]] = ()


def score(
    benchmark: str,
    predictions: str | Path,
    *,
    output: str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    protocols: Sequence[str] = ("official",),
    only_answered: bool = False,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    failure_marks: Sequence[str] = (),
    judge: Judge | None = None,
    progress: Progress = silent,
) -> EvalResult:
    """Score a file of stored predictions, write the result and return it.

    Args:
        benchmark: a name, ``path/to/file.py`` or ``path/to/file.yaml``.
        predictions: file of predictions.
        output: result folder.
        data: the questions, in the layout that the benchmark publishes; None for the hub.
        split: split of the data.
        limit: maximum number of questions, taken from the start.
        protocols: ``official``, ``verifier``, ``judge`` or ``judge:NAME``; the first one is the headline.
        only_answered: exclude questions without a prediction, with a flag that says so.
        overwrite: replace an existing result.
        columns: the file's columns by field, such as ``{"id": "index"}``; None for the usual names.
        failure_marks: beginnings of texts that report a failure, besides those of VLMEvalKit and lmms-eval.
        judge: judge for the protocols that need one.
        progress: opens a progress display for a title.

    Raises:
        UserError: unknown benchmark or protocol, an existing result, no judge or a judge that refused.
        DataError: data or predictions cannot be used.
    """
    stored = load_predictions(
        benchmark, predictions, output, protocols=protocols, data=data, split=split, limit=limit,
        only_answered=only_answered, overwrite=overwrite, columns=columns, failure_marks=failure_marks,
    )  # fmt: skip
    rows = score_stored(stored, judge=judge, progress=progress)
    if judge is not None:
        judge.raise_if_refused()
    write_scores(stored, rows, output, judge=judge)
    return read_result(output)


def load_predictions(
    benchmark: str,
    predictions: str | Path,
    output: str | Path,
    *,
    protocols: Sequence[str],
    data: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    only_answered: bool = False,
    overwrite: bool = False,
    columns: Mapping[str, str] | None = None,
    failure_marks: Sequence[str] = (),
) -> StoredPredictions:
    """Load predictions and questions, and check that they can be scored into ``output``.

    Arguments and exceptions as for ``score``.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit} must be at least 1")
    found = find_benchmark(benchmark)
    names = checked_protocols(protocols, found)
    if (Path(output) / SUMMARY).exists() and not overwrite:
        raise UserError(f"{output} already contains a result; name another --output, or add --overwrite")
    path = None if data is None else str(data)
    examples = found.load(DataSource(path, split, limit))
    read = read_file(predictions, found, examples=examples, columns=columns, marks=failure_marks)
    failures = [one.failure.reason for one in read.responses if one.failure is not None]
    if len(failures) == len(read.responses):
        why = "; ".join([*read.warnings, *failures[:1]])
        raise DataError(f"{predictions} has no response to score: {why}")
    asked, flags = _select(examples, read, only_answered, limit)
    settings = {
        "benchmark": benchmark,
        "data": path,
        "split": split,
        "limit": limit,
        "only_answered": only_answered,
        "data_fingerprint": data_fingerprint(asked),
        "predictions": str(predictions),
        "predictions_fingerprint": file_fingerprint(predictions),
        "protocols": names,
        **({"columns": dict(columns)} if columns else {}),
        **({"failure_marks": list(failure_marks)} if failure_marks else {}),
    }
    return StoredPredictions(
        found, asked, read.responses, names, settings, [*read.warnings, *flags], read.missing
    )


def score_stored(
    stored: StoredPredictions,
    *,
    judge: Judge | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[ScoredRow]:
    """Score loaded predictions.

    Args:
        stored: result of ``load_predictions``.
        judge: judge for the protocol judge.
        workers: rows scored concurrently; None for one per core, with a judge as many as its endpoint allows.
        progress: opens a progress display for a title.

    Raises:
        UserError, DataError: as ``score_responses``.
    """
    ask = None if judge is None else judge.ask
    if judge is not None and workers is None:
        workers = judge.endpoint.concurrency
    with progress(f"{'scoring' if judge is None else 'judging'} {stored.benchmark.name}") as report:
        rows = score_responses(
            stored.benchmark, stored.examples, stored.responses, stored.protocols,
            ask=ask, progress=report, workers=workers,
        )  # fmt: skip
    return [
        replace(row, missing=row.missing or (row.example.id, row.response.sample) in stored.missing)
        for row in rows
    ]


def write_scores(
    stored: StoredPredictions,
    rows: Sequence[ScoredRow],
    output: str | Path,
    *,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Write scored predictions as a result, and return its summary. Raises ``UserError``."""
    judged_by = {}
    if judge is not None:
        judged_by = {"judge": {**judge.settings(), "rules": judge_rules(stored.benchmark, stored.protocols)}}
    settings = {**stored.settings, **judged_by, "packages": package_versions()}
    return write_result(output, stored.benchmark, rows, settings, flags=stored.flags)


def _select(
    examples: Sequence[Example], read: Predictions, only_answered: bool, limit: int | None
) -> tuple[list[Example], list[str]]:
    """Return the questions to score, and one line for each mismatch between questions and predictions."""
    answered = {one.id for one in read.responses if one.failure is None}
    listed = {one.id for one in read.responses} | {name for name, _ in read.missing}
    kept = [one for one in examples if one.id in answered or not only_answered]
    flags = []
    if only_answered and len(kept) < len(examples):
        flags.append(f"only the {len(kept):,} questions with a response were scored, of {len(examples):,}")
    elif not listed >= {one.id for one in kept}:
        flags.append(
            "some questions have no response; if the predictions cover only a part of the data, select that "
            "part by --data, --split or --limit, or add --only-answered"
        )
    others = unmatched_ids(examples, read.responses)
    # With a limit, responses to the questions beyond it are expected.
    if others and limit is None:
        flags.append(
            f"responses to {len(others):,} ids that are not in the data were ignored, first {others[0]!r}"
        )
    # If nothing matches, the error of ``match`` is clearer than one about an empty list.
    return kept or list(examples), flags
