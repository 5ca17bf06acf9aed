"""Comparison of this verifier with math-verify in one run: regression cases, gold answers, responses.

    python -m pip download math-verify==0.9.0 --no-deps --no-binary :all: && tar xzf math_verify-0.9.0.tar.gz
    python -m benchmarks.rewards.rewards_against_math_verify --cases math_verify-0.9.0/tests

Where test files or a data set are missing, their rows are left out of the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import math_verify

from benchmarks.rewards.hostile_texts import HOSTILE
from benchmarks.rewards.math_verify_cases import Case, read_cases
from rewards import Status, Verdict, extract_answer, verify

_PAIRS = 20_000
_DISAGREEMENTS = Path(__file__).with_name("mathvision_disagreements.json")
_CONFIGS = (math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig())
Row = tuple[str, str, str]


def theirs_parsed(text: str) -> list[Any]:
    """Return what math-verify parses; an empty list where it fails."""
    try:
        return list(math_verify.parse(text, _CONFIGS))
    except Exception:
        return []


def theirs(gold: list[Any], answer: list[Any], precision: int = 6) -> bool:
    """Return math-verify's verdict; an exception counts as wrong."""
    try:
        return bool(math_verify.verify(gold, answer, float_rounding=precision))
    except Exception:
        return False


def ours_on_case(case: Case) -> Verdict:
    """Verify a case of math-verify, whose gold answers may be whole solutions and whose lists are sets."""
    gold = case.gold
    if "boxed" in gold or len(gold) > 100:
        gold = extract_answer(gold) or gold
    return verify(case.prediction, gold, ordered=False)


def regression(folder: Path) -> Row:
    cases = read_cases(folder)
    verdicts = [ours_on_case(case) for case in cases]
    right = [(v.status is Status.CORRECT) == c.expected for v, c in zip(verdicts, cases, strict=True)]
    for verdict, case, agrees in zip(verdicts, cases, right, strict=True):
        if not agrees:
            print(f"  {case.name}: they expect {case.expected}; {verdict.reason}")
    peer = sum(
        theirs(theirs_parsed(c.gold), theirs_parsed(c.prediction), c.precision) == c.expected for c in cases
    )
    return f"regression cases, of {len(cases)}", str(peer), str(sum(right))


def self_accepted(golds: list[str]) -> list[Row]:
    times: list[tuple[float, float]] = []
    counts = [0, 0]
    for gold in golds:
        text = rf"\boxed{{{gold}}}"
        started = time.perf_counter()
        verdict = verify(text, gold)
        middle = time.perf_counter()
        counts[0] += theirs(theirs_parsed(gold), theirs_parsed(text))
        times.append((middle - started, time.perf_counter() - middle))
        counts[1] += verdict.status is Status.CORRECT
        if verdict.status is not Status.CORRECT:
            print(f"  {verdict.status.value}: {verdict.reason}: {' '.join(gold.split())[-70:]}")
    ours_ms, peer_ms = ([1000 * pair[i] for pair in times] for i in (0, 1))
    return [
        (f"K12: gold accepted as itself, of {len(golds)}", str(counts[0]), str(counts[1])),
        ("K12: ms per verdict, median / 99th percentile", _spread(peer_ms), _spread(ours_ms)),
    ]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} / {statistics.quantiles(values, n=100)[98]:.2f}"


def bare(gold: str) -> str:
    """Return a gold answer without delimiters, spaces, degrees, units, variable names and final stops."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", gold)
    text = re.sub(r"[${}\s]|\^?\\circ|°|\\[a-z]*degree|[.;]$|^[a-z]=", "", text.replace("dfrac", "frac"))
    return re.sub(r"(?<=\d)(?:cm|m|km|meters|yuan)[²2]?$|\^$|\.$", "", text.replace("π", r"\pi"))


def different(golds: list[str]) -> Row:
    draw, counts, done = random.Random(0), [0, 0], 0
    parsed = [theirs_parsed(gold) for gold in golds]
    answers = [theirs_parsed(rf"\boxed{{{gold}}}") for gold in golds]
    while done < _PAIRS:
        i, j = draw.sample(range(len(golds)), 2)
        if bare(golds[i]) == bare(golds[j]):
            continue
        done += 1
        counts[0] += theirs(parsed[j], answers[i])
        verdict = verify(rf"\boxed{{{golds[i]}}}", golds[j])
        counts[1] += verdict.status is Status.CORRECT
        if verdict.status is Status.CORRECT:
            print(f"  accepted: {golds[i]!r} for {golds[j]!r}")
    return f"K12: accepted of {_PAIRS:,} pairs that differ in text", *(f"{c / _PAIRS:.3%}" for c in counts)


def mathvision(folder: Path) -> list[Row]:
    lines = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    predictions = [
        json.loads(line)
        for path in sorted((folder / "predictions").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    explained = {i for ids in json.loads(_DISAGREEMENTS.read_text(encoding="utf-8")).values() for i in ids}
    peer = [theirs_on_options(rows[p["id"]], p["response"]) == p["correct"] for p in predictions]
    ours, unexplained = [], []
    for p in predictions:
        row = rows[p["id"]]
        verdict = verify(p["response"], row["answer"], choices=row["options"])
        ours.append((verdict.status is Status.CORRECT) == p["correct"])
        if not ours[-1] and p["id"] not in explained:
            unexplained.append(f"  {p['id']}: they say {p['correct']}; {verdict.reason}")
    print(*unexplained, sep="\n")
    total = len(predictions)
    aside = (total - len(unexplained)) / total
    return [
        (f"MathVision: agreement, of {total:,}", f"{sum(peer) / total:.2%}", f"{sum(ours) / total:.2%}"),
        ("MathVision: agreement, without the benchmark's own errors", "", f"{aside:.2%}"),
    ]


def theirs_on_options(row: dict[str, Any], response: str) -> bool:
    """Return math-verify's verdict on the letter or, where there are options, on the gold option's text."""
    answer, options = row["answer"], row["options"]
    letters = math_verify.StringExtractionConfig(strings=tuple("ABCDE"))
    try:
        targets = (letters, *_CONFIGS) if options else _CONFIGS
        parsed, gold = math_verify.parse(response, targets), math_verify.parse(answer, targets)
        text = theirs_parsed(options[ord(answer) - 65]) if options else []
    except Exception:
        return False
    return theirs(gold, parsed) or bool(text and theirs(text, parsed))


def hostile() -> Row:
    """Return the longest time of a verdict on a hostile text (math-verify is left out: it hangs on some)."""
    verify(r"\boxed{\sin^2 x}", r"1-\cos^2 x")
    worst = 0.0
    for text in HOSTILE:
        for completion, gold in ((rf"\boxed{{{text}}}", "1"), (r"\boxed{1}", text)):
            started = time.perf_counter()
            verify(completion, gold, timeout=1.0)
            worst = max(worst, time.perf_counter() - started)
    return (
        f"hostile inputs: longest of {2 * len(HOSTILE)} verdicts with a limit of 1 s",
        "–",
        f"{worst:.2f} s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/datasets"))
    parser.add_argument("--cases", type=Path, help="folder of math-verify's test files")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    table: list[Row] = []
    k12, vision = options.data / "k12" / "k12.json", options.data / "mathvision"
    steps: list[Callable[[], list[Row]]] = [lambda: [regression(options.cases)]] if options.cases else []
    if k12.exists():
        golds = [row["answer"] for row in json.loads(k12.read_text(encoding="utf-8"))]
        steps += [lambda: self_accepted(golds), lambda: [different(golds)]]
    if vision.exists():
        steps.append(lambda: mathvision(vision))
    for step in [*steps, lambda: [hostile()]]:
        table += step()
    print("\n| measure | math-verify | this |\n|---|---|---|")
    for row in table:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
