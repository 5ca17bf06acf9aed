"""``mm-cpgd rewards test``: a rule on cases whose right verdict is known."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import read_rows
from mm_cpgd.errors import UserError
from mm_cpgd.tracking.progress import slow_bar
from rewards import Component, RewardSum, Status, Verdict
from rewards.example import RewardExample, gold_text, option_texts
from rewards.messages import short

COLUMNS = ("completion", "gold", "expected")
SHOWN = 20
PERCENTILES = (50, 90, 99, 100)
Expected = float | Status | None


@dataclass(frozen=True)
class Case:
    """A completion, its example and the expected verdict: a score, a status, or None for no score."""

    where: str
    completion: str
    example: RewardExample
    expected: Expected


@dataclass(frozen=True)
class CaseResult:
    """A case, its verdict and time, and whether another verifier accepts it (None: not compared)."""

    case: Case
    verdict: Verdict
    seconds: float
    second: bool | None = None

    @property
    def right(self) -> bool:
        """Whether the verdict is the expected one."""
        wanted, score = self.case.expected, self.verdict.score
        if isinstance(wanted, Status):
            return self.verdict.status is wanted
        if wanted is None or score is None:
            return wanted is None and score is None
        return math.isclose(score, wanted, abs_tol=1e-6)


def read_cases(path: Path) -> list[Case]:
    """Read the cases. Raises ``UserError`` or ``DataError`` for an invalid file, row or column."""
    rows = list(read_rows(path))
    if not rows:
        raise UserError(f"{path} has no cases; write one per line: completion, gold, expected")
    for row in rows:
        missing = [column for column in COLUMNS if column not in row.values]
        if row.error or missing:
            problem = row.error or f"has no {missing[0]!r}"
            raise UserError(
                f"{row.where} {problem}; a case has completion, gold, expected and optionally choices"
            )
    return [_case(row.where, row.values) for row in rows]


def _case(where: str, values: Mapping[str, Any]) -> Case:
    if not isinstance(values["completion"], str):
        raise UserError(f"{where}: completion is {values['completion']!r}; it must be a text")
    example = RewardExample(
        answer=gold_text(values["gold"], f"{where}: gold"),
        choices=option_texts(values.get("choices"), f"{where}: choices"),
        id=where,
        meta={key: value for key, value in values.items() if key not in COLUMNS},
    )
    return Case(where, values["completion"], example, _expected(where, values["expected"]))


def _expected(where: str, value: Any) -> Expected:
    if value is None:
        return None
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and value in {status.value for status in Status}:
        return Status(value)
    known = ", ".join(status.value for status in Status)
    raise UserError(
        f"{where}: expected is {value!r}; it must be true, false, a score, null (no score), or one of {known}"
    )


def run_cases(
    rule: str, options: Mapping[str, Any], cases: Sequence[Case], second: bool, console: Console
) -> list[CaseResult]:
    """Score the cases one after another, so that each is timed alone; slow tests show a progress bar."""
    # As a sum, a rule that raises yields an error verdict for that case.
    reward = RewardSum([Component(rule, options=options, name="rule")])
    other = _math_verify() if second else None
    results = []
    with slow_bar(console, f"testing {rule}") as report:
        for case in cases:
            started = time.perf_counter()
            verdict = reward.score_one(case.completion, case.example).components["rule"]
            seconds = time.perf_counter() - started
            accepted = other(case.example.answer, case.completion) if other else None
            results.append(CaseResult(case, verdict, seconds, accepted))
            report(len(results), len(cases))
    return results


def _math_verify() -> Callable[[str, str], bool]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise UserError(
            "--second-opinion math-verify needs that package: pip install 'math-verify[antlr4_13_2]'"
        ) from error
    return lambda gold, completion: bool(verify(parse(f"${gold}$") or parse(gold), parse(completion)))


def print_results(rule: str, results: Sequence[CaseResult], console: Console) -> None:
    """Print right and wrong verdicts, confusions, latency, the failing cases and the disagreements."""
    right = sum(result.right for result in results)
    console.print(Text(f"{rule}: {right:,} of {len(results):,} right, accuracy {right / len(results):.4f}"))
    console.print(_confusion(results))
    percentiles = "  ".join(f"{rank} % {1000 * latency(results, rank):.2f}" for rank in PERCENTILES)
    console.print(Text(f"milliseconds per verdict: {percentiles} (the first may start a worker process)"))
    _print_list("wrong verdicts", [_failure(one) for one in results if not one.right], console)
    differing = [one for one in results if one.second is not None and one.second != _accepted(one)]
    if any(one.second is not None for one in results):
        _print_list("math-verify disagrees", [_disagreement(one) for one in differing], console)


def summary(rule: str, options: Mapping[str, Any], results: Sequence[CaseResult]) -> dict[str, Any]:
    """Return the results for a JSON file."""
    return {
        "rule": rule,
        "options": dict(options),
        "cases": len(results),
        "right": sum(result.right for result in results),
        "accuracy": sum(result.right for result in results) / len(results),
        "confusion": [
            {"expected": expected, "got": got, "cases": count}
            for (expected, got), count in sorted(_pairs(results).items())
        ],
        "milliseconds": {f"p{rank}": 1000 * latency(results, rank) for rank in PERCENTILES},
        "wrong": [_record(one) for one in results if not one.right],
        "math_verify_disagrees": [
            _record(one) for one in results if one.second is not None and one.second != _accepted(one)
        ],
    }


def failure_message(results: Sequence[CaseResult], required: float) -> str | None:
    """Return why the test fails, or None if the share of right verdicts is at least ``required``."""
    failed = sum(not result.right for result in results)
    accuracy = 1 - failed / len(results)
    if accuracy >= required or not failed:
        return None
    if required >= 1:
        return f"{failed:,} of {len(results):,} cases failed; --min-accuracy allows a share of them"
    return f"accuracy {accuracy:.4f} is below {required:g}"


def latency(results: Sequence[CaseResult], rank: int) -> float:
    """Return the nearest-rank percentile of the seconds per verdict."""
    ordered = sorted(result.seconds for result in results)
    return ordered[max(math.ceil(rank / 100 * len(ordered)) - 1, 0)]


def _accepted(result: CaseResult) -> bool:
    return result.verdict.score is not None and result.verdict.score >= 1


def _named(expected: Expected) -> str:
    if isinstance(expected, Status):
        return expected.value
    return "no score" if expected is None else f"score {expected:g}"


def _got(result: CaseResult) -> str:
    if isinstance(result.case.expected, Status):
        return result.verdict.status.value
    return _named(result.verdict.score)


def _pairs(results: Sequence[CaseResult]) -> Counter[tuple[str, str]]:
    return Counter((_named(result.case.expected), _got(result)) for result in results)


def _confusion(results: Sequence[CaseResult]) -> Table:
    table = Table("expected", "got", "cases")
    table.columns[-1].justify = "right"
    for (expected, got), count in sorted(_pairs(results).items()):
        table.add_row(expected, got, f"{count:,}", style=None if expected == got else "red")
    return table


def _failure(result: CaseResult) -> str:
    expected, got = _named(result.case.expected), _got(result)
    return f"{_case_line(result)}: {expected} expected, {got} given: {result.verdict.reason}"


def _disagreement(result: CaseResult) -> str:
    other = "accepts" if result.second else "rejects"
    return f"{_case_line(result)}: it {other}, this rule: {result.verdict.reason}"


def _case_line(result: CaseResult) -> str:
    case = result.case
    return f"{case.where}  {_end(case.completion)!r} for {_end(case.example.answer)!r}"


def _end(text: str) -> str:
    return short(text, 70, end=True)


def _print_list(title: str, lines: Sequence[str], console: Console) -> None:
    console.print(Text(f"{title}: {len(lines):,}", style="bold"))
    for line in lines[:SHOWN]:
        console.print(Text(f"  {line}"), soft_wrap=True)
    if len(lines) > SHOWN:
        console.print(Text(f"  … and {len(lines) - SHOWN:,} more; --json FILE lists all"))


def _record(result: CaseResult) -> dict[str, Any]:
    case, verdict = result.case, result.verdict
    return {
        "where": case.where,
        "completion": case.completion,
        "gold": case.example.answer,
        "expected": case.expected.value if isinstance(case.expected, Status) else case.expected,
        "score": verdict.score,
        "status": verdict.status.value,
        "extracted": verdict.extracted,
        "reason": verdict.reason,
        "math_verify": result.second,
    }
