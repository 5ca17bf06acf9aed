"""Scoring of responses by protocol (official, verifier, judge), with one or several samples per question."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from data import DataError, Example
from eval.benchmark import DECLINED, Ask, Benchmark, Failure, Response, ScoredRow
from eval.predictions import check_unique
from eval.scoring.protocols import checked_protocols, find_judge
from eval.scoring.statistics import interval_of_means, maj_at_k, pass_at_k
from mm_cpgd.errors import UserError
from rewards import Status, Verdict
from rewards.registry import as_verdict
from rewards.verify import grade
from rewards.workers.pool import PoolError, map_in_threads, usable_cores

Score = Callable[[Example, Response], Verdict]
Report = Callable[[int, int], None]
# Opens a progress display with the given title; its report is called with (done, total).
Progress = Callable[[str], AbstractContextManager[Report]]


@contextmanager
def silent(title: str) -> Iterator[Report]:
    """Show no progress."""
    yield lambda done, total: None


def score_responses(
    benchmark: Benchmark,
    examples: Sequence[Example],
    responses: Sequence[Response],
    protocols: Sequence[str],
    *,
    ask: Ask | None = None,
    progress: Report | None = None,
    workers: int | None = None,
    declined_wrong: bool = False,
) -> list[ScoredRow]:
    """Score the responses to every question, in the order of ``examples`` and of their samples.

    A question without a response scores 0 with status no_answer (or has no score, if the protocol can score
    none of its responses), and its row is ``missing``. One with a ``failure`` in its place has no score, by
    no protocol. Responses to other questions are ignored (``unmatched_ids`` returns them). A failing protocol
    gives a row no score.

    Args:
        benchmark: the questions' benchmark.
        examples: the questions.
        responses: responses, at most one for each (id, sample).
        protocols: names in ``protocol_names(benchmark)``; the first one is the headline protocol.
        ask: sends a prompt to the judge; required by the protocols of a judge only.
        progress: called with (rows done, all rows).
        workers: rows scored concurrently, in threads; None for one per usable core.
        declined_wrong: refusals, filtered and empty replies and tool calls score 0.

    Raises:
        DataError: no question, a duplicate question or response, no response to any of the questions.
        UserError: unknown protocol, or no judge.
    """
    scorers = {name: _scorer(benchmark, name, ask) for name in checked_protocols(protocols, benchmark)}
    pairs = match(examples, responses)

    def one(pair: tuple[Example, Response | None, int]) -> ScoredRow:
        example, response, sample = pair
        if response is None:
            nothing = Response(example.id, "", sample)
            wrong = Verdict(0.0, Status.NO_ANSWER, None, "no response is stored for this question")
            return ScoredRow(example, nothing, _without_response(scorers, example, wrong), missing=True)
        if response.failure is not None:
            verdict = _unanswered(response.failure, declined_wrong)
            return ScoredRow(example, response, _without_response(scorers, example, verdict))
        if response.meta:
            example = replace(example, meta={**example.meta, **response.meta})
        verdicts = {name: _verdict(name, scorer, example, response) for name, scorer in scorers.items()}
        return ScoredRow(example, response, verdicts)

    scored: list[ScoredRow] = []
    for row in _in_threads(one, pairs, workers or usable_cores()):
        scored.append(row)
        if progress:
            progress(len(scored), len(pairs))
    return scored


def match(
    examples: Sequence[Example], responses: Sequence[Response]
) -> list[tuple[Example, Response | None, int]]:
    """Pair every question with its response of every sample number that occurs; None if it is missing.

    Raises:
        DataError: no question, a duplicate question or response, or no response to any of the questions.
    """
    if not examples:
        raise DataError("the benchmark's data has no rows; check --data, --split and --limit")
    twice = [name for name, count in Counter(one.id for one in examples).items() if count > 1]
    if twice:
        raise DataError(f"{len(twice):,} question ids occur twice, first {twice[0]!r}; make ids unique")
    check_unique(responses, "responses")
    by_sample = {(one.id, one.sample): one for one in responses}
    if not {one.id for one in examples} & {one.id for one in responses}:
        first = f" (first id {responses[0].id!r})" if responses else ""
        raise DataError(
            f"none of the {len(responses):,} responses{first} belongs to one of the {len(examples):,} "
            f"questions (first id {examples[0].id!r}); give the data that the responses were generated from"
        )
    samples = sorted({one.sample for one in responses})
    return [(one, by_sample.get((one.id, sample)), sample) for one in examples for sample in samples]


def unmatched_ids(examples: Sequence[Example], responses: Sequence[Response]) -> list[str]:
    """Return the ids of responses that belong to none of the questions, each once."""
    known = {one.id for one in examples}
    return list(dict.fromkeys(one.id for one in responses if one.id not in known))


def _scorer(benchmark: Benchmark, protocol: str, ask: Ask | None) -> Score:
    if protocol == "official":
        return benchmark.official
    if protocol == "verifier":
        return benchmark.verifier
    if ask is None:
        raise UserError(f"the protocol {protocol} needs a judge: give --judge-url and --judge-model")
    from eval.scoring.judge import JudgeError

    judge = find_judge(benchmark, protocol)

    def by_judge(example: Example, response: Response) -> Verdict:
        try:
            return judge(example, response, ask)
        except JudgeError as error:
            return Verdict(None, Status.NOT_JUDGED, None, str(error))

    return by_judge


def _without_response(scorers: Mapping[str, Score], example: Example, verdict: Verdict) -> dict[str, Verdict]:
    """Return the verdict by protocol on a question without a response, which is wrong or has no score.

    Where a protocol would score no response to the question (only a judge can, only a program), it scores
    none that is missing. Judges are not asked.
    """
    if not example.answer.strip():
        return dict.fromkeys(scorers, _no_gold())
    found = dict.fromkeys(scorers, verdict)
    if verdict.score is None:
        return found
    for name in set(scorers) & {"official", "verifier"}:
        empty = _verdict(name, scorers[name], example, Response(example.id, ""))
        if empty.score is None and empty.status is not Status.ERROR:
            found[name] = empty
    return found


def _unanswered(failure: Failure, declined_wrong: bool) -> Verdict:
    wrong = declined_wrong and failure.status in DECLINED
    return Verdict(0.0 if wrong else None, failure.status, None, failure.reason)


def _no_gold() -> Verdict:
    return Verdict(None, Status.UNPARSABLE_GOLD, None, "the question has no gold answer")


def _verdict(protocol: str, scorer: Score, example: Example, response: Response) -> Verdict:
    """Return the protocol's verdict; an exception becomes a verdict without a score, which is counted."""
    if not example.answer.strip():
        return _no_gold()
    try:
        return as_verdict(protocol, scorer(example, response))
    except PoolError:  # a broken installation: every row would fail the same way
        raise
    except Exception as error:
        return Verdict(None, Status.ERROR, None, f"{type(error).__name__}: {error}"[:300])


def _in_threads(
    one: Callable[[tuple[Example, Response | None, int]], ScoredRow],
    pairs: Sequence[tuple[Example, Response | None, int]],
    workers: int,
) -> Iterator[ScoredRow]:
    """Map in order. Threads suffice: slow rows wait for a worker process or for the judge."""
    if workers == 1:
        yield from map(one, pairs)
        return
    executor = ThreadPoolExecutor(workers, thread_name_prefix="scoring")
    try:
        yield from executor.map(one, pairs)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def sampling_metrics(rows: Sequence[ScoredRow]) -> dict[str, Any] | None:
    """Return sampling metrics by the first protocol over all questions with a score; None with one sample.

    Returns:
        ``k`` samples per question; ``questions``; ``complete``, those with a score of all k samples;
        ``accuracy``, the mean over questions; ``pass_at_k`` by k (1, 2, 4, … and k; a response is right when
        its score is 1), over the questions with as many scores; ``maj_at_k``, of all k over complete ones;
        ``intervals``, the 95 % intervals of these three, which are for questions like these.
    """
    questions: dict[str, list[ScoredRow]] = defaultdict(list)
    for row in rows:
        if row.verdict.score is not None:
            questions[row.example.id].append(row)
    k = len({row.response.sample for row in rows})
    if k < 2 or not questions:
        return None
    scores = [[row.verdict.score or 0.0 for row in own] for own in questions.values()]
    means, passed = list(map(fmean, scores)), {str(n): _passes(scores, n) for n in _powers(k)}
    complete = [own for own in questions.values() if len(own) == k]
    voted = map_in_threads(_majority, complete) if complete else []
    return {
        "k": k,
        "questions": len(questions),
        "complete": len(complete),
        "accuracy": fmean(means),
        "pass_at_k": {n: fmean(own) if own else None for n, own in passed.items()},
        "maj_at_k": fmean(voted) if voted else None,
        "intervals": {
            "accuracy": list(interval_of_means(means, k)),
            "pass_at_k": {n: list(interval_of_means(own, k)) for n, own in passed.items()},
            "maj_at_k": list(interval_of_means(voted)),
        },
    }


def _powers(k: int) -> list[int]:
    return [1 << i for i in range(k.bit_length()) if 1 << i < k] + [k]


def _passes(scores: Sequence[Sequence[float]], k: int) -> list[float]:
    """Return pass@k of each question with at least ``k`` scored responses."""
    return [pass_at_k(sum(one >= 1 for one in own), len(own), k) for own in scores if len(own) >= k]


def _majority(rows: Sequence[ScoredRow]) -> float:
    same = partial(_same, choices=rows[0].example.choices)
    return maj_at_k([row.verdict.extracted for row in rows], [row.verdict.score or 0.0 for row in rows], same)


def _same(answer: str, other: str, choices: Sequence[str]) -> bool:
    return grade(answer, other, choices).status is Status.CORRECT
