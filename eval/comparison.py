"""Paired comparison of two results: the difference, its uncertainty, and the questions that changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from eval.results import EvalResult, read_result
from eval.scoring.statistics import mcnemar_p, mean_difference, paired_interval
from eval.scoring.summary import sort_groups
from eval.settings import settings_differences
from mm_cpgd.errors import UserError
from rewards.messages import nearest

ONE_EACH = "Newcombe's method 10, McNemar's exact test"
BY_QUESTION = "normal approximation over questions"
Row = Mapping[str, Any]
_QUESTION = ("question", "answer", "choices")


@dataclass(frozen=True)
class Pair:
    """Responses of both results to the same question; scores by the compared protocol."""

    a: Row
    b: Row
    protocol: str

    @property
    def scores(self) -> tuple[float, float]:
        """Scores of A and of B."""
        return self.a["protocols"][self.protocol]["score"], self.b["protocols"][self.protocol]["score"]

    @property
    def sides(self) -> tuple[bool, bool]:
        """Whether A is right, and B."""
        a, b = self.scores
        return a >= 1, b >= 1


@dataclass(frozen=True)
class Difference:
    """Difference between B and A over the same questions.

    Attributes:
        total: number of pairs.
        a: mean score of A.
        b: mean score of B.
        difference: b − a.
        interval: 95 % interval of the difference.
        p: two-sided p-value of the hypothesis of no difference.
        gained: responses that are right in B only.
        lost: responses that are right in A only.
    """

    total: int
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    p: float
    gained: int
    lost: int


@dataclass(frozen=True)
class Change:
    """Response that is right in only one of the results."""

    id: str
    sample: int
    gained: bool
    extracted_a: str | None
    extracted_b: str | None
    answer: str


@dataclass(frozen=True)
class Comparison:
    """Comparison of two results.

    Attributes:
        benchmark: A's benchmark.
        protocol: protocol of the compared scores.
        method: how interval and p are computed.
        overall: difference over all pairs.
        groups: differences by dimension and value. Of many groups some differ by chance.
        changed: changed responses, in the order of A's rows.
        settings: settings that differ, as (A's, B's).
        warnings: limits of the comparability, one line each.
    """

    benchmark: str
    protocol: str
    method: str
    overall: Difference
    groups: Mapping[str, Mapping[str, Difference]]
    changed: Sequence[Change]
    settings: Mapping[str, tuple[Any, Any]]
    warnings: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return asdict(self)


def compare(
    a: EvalResult | str | Path, b: EvalResult | str | Path, protocol: str | None = None
) -> Comparison:
    """Compare two results, paired by (id, sample).

    With one response per question, right or wrong, by Newcombe's interval and McNemar's test; else by the
    mean difference of each question, because several responses to one question are not independent.

    Args:
        a: the first result, or its folder.
        b: the second; a positive difference means that it is better.
        protocol: None for A's first one.

    Raises:
        UserError: a folder without a result, a result lacks the protocol, or no question is in both.
    """
    a, b = (one if isinstance(one, EvalResult) else read_result(one) for one in (a, b))
    name = _protocol(a, b, protocol)
    pairs, warnings = _paired(a, b, name)
    settings = settings_differences(a.summary.get("settings", {}), b.summary.get("settings", {}))
    single = len({pair.a["id"] for pair in pairs}) == len(pairs)
    plain = single and all(score in (0, 1) for pair in pairs for score in pair.scores)
    measure = _one_each if plain else _by_question
    return Comparison(
        benchmark=a.summary["benchmark"],
        protocol=name,
        method=ONE_EACH if plain else BY_QUESTION,
        overall=measure(pairs),
        groups={
            dimension: {value: measure(own) for value, own in values.items()}
            for dimension, values in _groups(pairs).items()
        },
        changed=[_change(pair) for pair in pairs if pair.sides[0] != pair.sides[1]],
        settings=settings,
        warnings=[*_headline(a, b), *_rules(a, b, name), *warnings, *_setting_warnings(settings)],
    )


def _protocol(a: EvalResult, b: EvalResult, wanted: str | None) -> str:
    name = wanted or a.summary["protocol"]
    both = [one for one in a.summary["protocols"] if one in b.summary["protocols"]]
    if name not in both:
        known = nearest(name, both) if both else "they have none in common; rescore one of them"
        raise UserError(f"protocol {name!r} is not in both results: {known}")
    return name


def _paired(a: EvalResult, b: EvalResult, protocol: str) -> tuple[list[Pair], list[str]]:
    """Return the pairs with a score in both results, and warnings about the others."""
    rows_a, rows_b = ({(row["id"], row["sample"]): row for row in one.rows} for one in (a, b))
    pairs = [Pair(row, rows_b[key], protocol) for key, row in rows_a.items() if key in rows_b]
    scored = [pair for pair in pairs if None not in pair.scores]
    if not scored:
        first = [repr(next(iter(rows))[0]) if rows else "none" for rows in (rows_a, rows_b)]
        raise UserError(
            f"no question has a score in both results (first ids {first[0]} and {first[1]}); "
            "compare results of the same benchmark and data"
        )
    excluded = {
        "in A only": len(rows_a) - len(pairs),
        "in B only": len(rows_b) - len(pairs),
        "without a score in one result": len(pairs) - len(scored),
    }
    warnings = [f"{count:,} responses {what} are excluded" for what, count in excluded.items() if count]
    changed = sum(any(pair.a[name] != pair.b[name] for name in _QUESTION) for pair in pairs)
    if changed:
        warnings.insert(0, f"{changed:,} of {len(pairs):,} questions differ in text, gold answer or choices")
    return scored, warnings


def _one_each(pairs: Sequence[Pair]) -> Difference:
    gained, lost = _changes(pairs)
    both = sum(pair.sides == (True, True) for pair in pairs)
    interval = paired_interval(both, gained, lost, len(pairs) - both - gained - lost)
    return _difference(pairs, interval, mcnemar_p(gained, lost))


def _by_question(pairs: Sequence[Pair]) -> Difference:
    differences: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        differences[pair.a["id"]].append(pair.scores[1] - pair.scores[0])
    interval, p = mean_difference([fmean(own) for own in differences.values()])
    return _difference(pairs, interval, p)


def _difference(pairs: Sequence[Pair], interval: tuple[float, float], p: float) -> Difference:
    a, b = (fmean(pair.scores[side] for pair in pairs) for side in (0, 1))
    return Difference(len(pairs), a, b, b - a, interval, p, *_changes(pairs))


def _changes(pairs: Iterable[Pair]) -> tuple[int, int]:
    sides = [pair.sides for pair in pairs]
    return sides.count((False, True)), sides.count((True, False))


def _groups(pairs: Iterable[Pair]) -> dict[str, dict[str, list[Pair]]]:
    """Return the pairs by A's groups."""
    found: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        for dimension, values in pair.a["groups"].items():
            for value in values:
                found[dimension][value].append(pair)
    return sort_groups(found)


def _change(pair: Pair) -> Change:
    a, b = (row["protocols"][pair.protocol]["extracted"] for row in (pair.a, pair.b))
    return Change(pair.a["id"], pair.a["sample"], pair.sides[1], a, b, pair.a["answer"])


def _headline(a: EvalResult, b: EvalResult) -> list[str]:
    """Return warnings about different benchmarks or protocols and missing responses."""
    lines = []
    for name in ("benchmark", "protocol"):
        first, second = a.summary[name], b.summary[name]
        if first != second:
            lines.append(f"the {name} differs: A {first}, B {second}")
    for side, result in (("A", a), ("B", b)):
        missing = sum(bool(row.get("missing")) and row["score"] is not None for row in result.rows)
        if missing:
            lines.append(f"{side} lacks {missing:,} responses, which count as wrong")
        unanswered = result.summary.get("unanswered") or {}
        if unanswered.get("count"):
            lines.append(
                f"{side} is not complete: {unanswered['count']:,} responses are not there; if it is of "
                "mm-cpgd eval, its command asks for them again"
            )
    return lines


def _rules(a: EvalResult, b: EvalResult, protocol: str) -> list[str]:
    """Return a warning if the scores rest on extractions by rule to different shares."""
    found = [one.summary["protocols"][protocol].get("by_rule") for one in (a, b)]
    if None in found or found[0]["share"] == found[1]["share"]:
        return []
    counts = [f"{name} {one['count']:,} of its answers" for name, one in zip("AB", found, strict=True)]
    return [f"{protocol} extracted {' and '.join(counts)} by a rule, not by the benchmark's LLM"]


def _setting_warnings(settings: Mapping[str, tuple[Any, Any]]) -> list[str]:
    # Different data already show in the rows, as excluded or changed questions.
    others = [name for name in settings if name != "data_fingerprint"]
    return [f"settings differ: {', '.join(others)}"] if others else []
