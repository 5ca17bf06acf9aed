"""Summary of the scored rows of a benchmark: accuracies by protocol and group, and flags about them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

from eval.benchmark import Benchmark, ScoredRow
from eval.scoring.score import sampling_metrics
from eval.scoring.statistics import clustered_interval, wilson_interval
from rewards import Status, Verdict
from rewards.messages import short

UNPARSED = (Status.NO_ANSWER, Status.UNPARSABLE_ANSWER)
Items = TypeVar("Items")
# Shares from which on a flag is raised.
MANY_UNPARSED, SOME_TRUNCATED, MOSTLY = 0.1, 0.05, 0.5


def summarise(benchmark: Benchmark, rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """Return the summary of one benchmark; ``docs/evaluation.md`` has the table of its fields."""
    names = list(rows[0].verdicts) if rows else []
    protocols = {name: _protocol(benchmark, rows, name) for name in names}
    first = protocols[names[0]] if names else {}
    summary = {
        "benchmark": benchmark.name,
        "protocol": names[0] if names else None,
        **first,
        "truncated": _truncated(rows),
        **(
            {"forced": _count(forced, len(rows))}
            if (forced := sum(row.response.forced for row in rows))
            else {}
        ),
        "missing": _count(sum(row.missing for row in rows), len(rows)),
        "unanswered": _unanswered(rows),
        "samples": sampling_metrics(rows),
        "protocols": protocols,
    }
    return {**summary, "flags": _flags(rows, summary)}


def by_group(benchmark: Benchmark, rows: Iterable[ScoredRow]) -> dict[str, dict[str, list[ScoredRow]]]:
    """Return the rows by dimension and value."""
    found: dict[str, dict[str, list[ScoredRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for dimension, values in benchmark.groups(row.example).items():
            for value in dict.fromkeys(map(str, values)):
                found[dimension][value].append(row)
    return sort_groups(found)


def sort_groups(groups: Mapping[str, Mapping[str, Items]]) -> dict[str, dict[str, Items]]:
    """Return groups by dimension and value, the values in natural order (2 before 10)."""
    return {
        dimension: dict(sorted(values.items(), key=lambda item: natural_sort_key(item[0])))
        for dimension, values in groups.items()
    }


def natural_sort_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders numbers within texts by value."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]


def _protocol(benchmark: Benchmark, rows: Sequence[ScoredRow], name: str) -> dict[str, Any]:
    groups = by_group(benchmark, rows)
    answered = [row.verdicts[name] for row in rows if not row.missing and row.response.failure is None]
    unscored = [row.verdicts[name] for row in rows if row.verdicts[name].score is None]
    return {
        "overall": _accuracy(rows, name),
        "groups": {
            dimension: {value: _accuracy(own, name) for value, own in values.items()}
            for dimension, values in groups.items()
        },
        "metrics": _metrics(benchmark, rows, name),
        "unscored": {**_count(len(unscored), len(rows)), "reasons": _reasons(unscored)},
        "unparsed": _count(sum(verdict.status in UNPARSED for verdict in answered), len(answered)),
        "by_rule": _by_rule(benchmark, rows) if name == "official" else None,
    }


def _accuracy(rows: Iterable[ScoredRow], protocol: str) -> dict[str, Any]:
    """Return the accuracy of the scored rows; several samples of a question are not independent."""
    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        score = row.verdicts[protocol].score
        if score is not None:
            scores[row.example.id].append(score)
    total = sum(map(len, scores.values()))
    correct = sum(map(sum, scores.values()))
    interval = wilson_interval(correct, total) if total == len(scores) else clustered_interval(scores)
    return {
        "correct": int(correct) if correct == int(correct) else correct,
        "total": total,
        "accuracy": correct / total if total else None,
        "interval": list(interval),
    }


def _metrics(benchmark: Benchmark, rows: Sequence[ScoredRow], protocol: str) -> dict[str, Any]:
    """Return the benchmark's own metrics, averaged over the samples."""
    if benchmark.metrics is None:
        return {}
    samples: dict[int, list[ScoredRow]] = defaultdict(list)
    for row in rows:
        samples[row.response.sample].append(row)
    found = [
        dict(benchmark.metrics([(row.example, row.verdicts[protocol]) for row in own]))
        for own in samples.values()
    ]
    averaged: dict[str, Any] = _averaged(found)
    return averaged


def _averaged(values: Sequence[Any]) -> Any:
    """Return the mean of numbers, also within mappings; of anything else, the first sample's value."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, Mapping) for value in values):
        return {key: _averaged([value[key] for value in values if key in value]) for key in values[0]}
    if all(isinstance(value, (int, float)) for value in values):
        return fmean(values)
    return values[0]


def _by_rule(benchmark: Benchmark, rows: Sequence[ScoredRow]) -> dict[str, Any] | None:
    """Return the responses from which this project extracted what the benchmark asks an LLM for."""
    if benchmark.by_rule is None:
        return None
    answered = [row for row in rows if not row.missing]
    return _count(sum(benchmark.by_rule(row.example, row.response) for row in answered), len(answered))


def _count(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "share": count / total if total else None}


def _unanswered(rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """Return the responses that are not there and have no score, and why; to be asked for again."""
    failures = [row.response.failure for row in rows if row.response.failure and row.verdict.score is None]
    statuses = Counter(one.status.value for one in failures)
    return {**_count(len(failures), len(rows)), "statuses": dict(statuses.most_common())}


def _reasons(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return the number of verdicts by status and kind of reason, the most frequent first."""
    return dict(Counter(map(_kind, verdicts)).most_common())


def _kind(verdict: Verdict) -> str:
    # Behind the colon are details of this row: a reply, an address.
    return f"{verdict.status.value}: {verdict.reason.partition(': ')[0]}"


def _truncated(rows: Iterable[ScoredRow]) -> dict[str, Any] | None:
    """Return the responses that were cut off, of those where that is known; None if it is known of none."""
    known = [row.response.finished for row in rows if row.response.finished is not None]
    return _count(known.count(False), len(known)) if known else None


def _flags(rows: Sequence[ScoredRow], summary: Mapping[str, Any]) -> list[str]:
    """Return one line for each caveat about the accuracy."""
    flags = []
    truncated = summary.get("truncated")
    missing = sum(row.missing and row.verdict.score is not None for row in rows)
    if missing:
        flags.append(f"{missing:,} of {len(rows):,} responses are missing and count as wrong")
    flags += _failures(rows)
    if truncated and truncated["share"] >= SOME_TRUNCATED:
        mostly = "mostly truncated: " if truncated["share"] >= MOSTLY else ""
        flags.append(f"{mostly}{truncated['share']:.1%} of the responses were cut off by the length limit")
    if forced := summary.get("forced"):
        flags.append(
            f"{forced['count']:,} of {len(rows):,} responses were cut off, and their answer was forced: not "
            "comparable with results without --force-answer"
        )
    for name, found in summary["protocols"].items():
        if found["by_rule"] and found["by_rule"]["count"]:
            flags.append(_not_published(name, found["by_rule"]["count"], len(rows)))
        share = found["unparsed"]["share"]
        if share is not None and share >= MANY_UNPARSED:
            flags.append(f"{name} could extract no answer from {share:.1%} of the responses")
    return flags + [line for name in summary["protocols"] for line in _unscored(rows, name)]


def _not_published(protocol: str, count: int, total: int) -> str:
    return (
        f"{protocol} extracted {count:,} of {total:,} answers by a rule of this project, where the benchmark "
        "asks an LLM: not comparable with published numbers; store its extractions, or use a judge"
    )


def _failures(rows: Sequence[ScoredRow]) -> list[str]:
    """Return flags about the questions without a response: not scored, and declined ones that are wrong."""
    failed = [row for row in rows if row.response.failure is not None]
    # The failures of a predictions file are other tools'.
    again = (
        "" if any(row.missing for row in failed) else "; the same mm-cpgd eval command asks for these again"
    )
    flags = []
    if unscored := [row.verdict for row in failed if row.verdict.score is None]:
        flags.append(
            f"{len(unscored):,} of {len(rows):,} responses are not there and have no score: "
            f"{_told(unscored)}{again}"
        )
    if wrong := [row.verdict for row in failed if row.verdict.score is not None]:
        flags.append(
            f"{len(wrong):,} of {len(rows):,} replies are no response and count as wrong: {_told(wrong)}"
        )
    return flags


def _unscored(rows: Sequence[ScoredRow], protocol: str) -> list[str]:
    """Return a flag with the number of responses without a score, by reason."""
    there = [row.verdicts[protocol] for row in rows if row.response.failure is None]
    without = [verdict for verdict in there if verdict.score is None]
    if not without:
        return []
    return [
        f"{protocol} gave no score to {len(without):,} of {len(rows):,} responses, which the accuracy "
        f"excludes: {_told(without)}"
    ]


def _told(verdicts: Sequence[Verdict]) -> str:
    """Return how often each kind of reason occurs, with the details of its first verdict."""
    told = []
    for kind, count in _reasons(verdicts).items():
        first = next(one for one in verdicts if _kind(one) == kind)
        details = short(first.reason.partition(": ")[2], 200)
        told.append(f"{count:,} times {kind}" + (f" (first: {details})" if details else ""))
    return "; ".join(told)
