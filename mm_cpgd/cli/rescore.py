"""Scoring of stored predictions into a result folder (``mm-cpgd score``). No model, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from data import Example
from eval.benchmark import Benchmark, DataSource, Response, ScoredRow
from eval.benchmarks import find_benchmark
from eval.predictions import read_responses
from eval.results import SUMMARY, data_fingerprint, file_fingerprint, package_versions, write_result
from eval.scoring.score import checked_protocols, score, strangers
from mm_cpgd.errors import UserError
from mm_cpgd.preflight.data import slow_bar

if TYPE_CHECKING:
    from mm_cpgd.cli.judge import JudgeOptions


def rescore(
    benchmark: str,
    predictions: Path,
    output: Path,
    *,
    protocols: Sequence[str],
    data: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    only_answered: bool = False,
    overwrite: bool = False,
    judge: JudgeOptions | None = None,
    console: Console,
) -> dict[str, Any]:
    """Score a file of answers, write the result and return its summary.

    Args:
        benchmark: name or file.
        predictions: file of answers.
        output: result folder.
        protocols: the first is the rows' own.
        data: where the questions are, None for the hub.
        split: of the data.
        limit: questions at most, the first ones.
        only_answered: leave out questions without an answer, with a flag that says so.
        overwrite: replace a result.
        judge: for the protocol judge.
        console: shows a bar if it takes long.

    Raises:
        UserError: unknown benchmark or protocol, a result is there already, no judge.
        DataError: data or answers cannot be used.
    """
    names = checked_protocols(protocols)
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit} must be at least 1")
    chosen = find_benchmark(benchmark)
    if (output / SUMMARY).exists() and not overwrite:
        raise UserError(f"{output} holds a result already; name another --output, or add --overwrite")
    responses = read_responses(predictions, chosen)
    examples = chosen.load(DataSource(data, split, limit))
    asked, flags = _restricted(examples, responses, only_answered, limit)
    rows, judged_by = _scored(chosen, asked, responses, names, judge if "judge" in names else None, console)
    settings = {
        "benchmark": benchmark,
        "data": data,
        "split": split,
        "limit": limit,
        "only_answered": only_answered,
        "data_fingerprint": data_fingerprint(asked),
        "predictions": str(predictions),
        "predictions_fingerprint": file_fingerprint(predictions),
        "protocols": names,
        **judged_by,
        "packages": package_versions(),
    }
    return write_result(output, chosen, rows, settings, flags=flags)


def _scored(
    benchmark: Benchmark,
    examples: Sequence[Example],
    responses: Sequence[Response],
    protocols: Sequence[str],
    judge: JudgeOptions | None,
    console: Console,
) -> tuple[list[ScoredRow], dict[str, Any]]:
    """Return the scored rows, and the judge's settings if there is one."""
    if judge is None:
        with slow_bar(console, f"scoring {benchmark.name}") as report:
            return score(benchmark, examples, responses, protocols, progress=report), {}
    from mm_cpgd.cli.judge import judging

    # Before anything is scored, and not under the bar: the judge's price may have to be confirmed.
    with judging(judge, benchmark, examples, responses, console) as asked:
        with slow_bar(console, f"judging {benchmark.name}") as report:
            rows = score(
                benchmark, examples, responses, protocols, ask=asked.ask, progress=report,
                workers=judge.concurrency,
            )  # fmt: skip
        return rows, {"judge": asked.settings()}


def _restricted(
    examples: Sequence[Example], responses: Sequence[Response], only_answered: bool, limit: int | None
) -> tuple[list[Example], list[str]]:
    """Return the questions to score, and one line for each way in which answers and questions differ."""
    answered = {one.id for one in responses}
    kept = [one for one in examples if one.id in answered or not only_answered]
    flags = []
    if only_answered and len(kept) < len(examples):
        flags.append(f"only the {len(kept):,} questions with an answer were scored, of {len(examples):,}")
    elif not answered >= {one.id for one in kept}:
        flags.append(
            "not every question has an answer; if these answers are to a part of the data only, name that "
            "part by --data, --split or --limit, or add --only-answered"
        )
    others = strangers(examples, responses)
    # With a limit there are answers to the questions behind it.
    if others and limit is None:
        flags.append(
            f"answers to {len(others):,} ids that the data do not have were passed over, first {others[0]!r}"
        )
    # Nothing in common: the message of ``match`` says more than an empty list would.
    return kept or list(examples), flags
