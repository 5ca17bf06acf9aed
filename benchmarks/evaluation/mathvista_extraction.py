r"""Agreement of MathVista's official scoring with published verdicts, with stored extractions and by rule.

    python -m benchmarks.evaluation.mathvista_extraction --data ../shared/datasets/mathvista \
        ../shared/datasets/mathvista/predictions/bard.json [results/gpt4/output_gpt4.json …]

The files are outputs of the benchmark's repository after the extraction stage (its folder ``results``). A
published verdict is a row's ``true_false``; in files without it, the comparison of the stored extraction.
Outputs of programs (``*_code*``) are left out there: their responses are code, not answers.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from data import Example
from eval.benchmark import DataSource
from eval.benchmarks.mathvista import benchmark
from eval.predictions import read_predictions
from rewards import Status


def agreement(path: Path, questions: Mapping[str, Example]) -> Counter[str]:
    """Return the counts of one file of predictions."""
    published = json.loads(path.read_text(encoding="utf-8"))
    counts: Counter[str] = Counter()
    for response in read_predictions(path, benchmark):
        example = questions[response.id]
        stored = benchmark.official(example, response).score == 1
        right = published[response.id].get("true_false", stored)
        verdict = benchmark.official(example, replace(response, extraction=None))
        by_rule = verdict.score == 1
        counts += Counter(
            rows=1,
            stored=stored == right,
            by_rule=by_rule == right,
            published_right=right,
            right_by_rule=by_rule,
            declined=by_rule != right and verdict.status is Status.NO_ANSWER,
        )
    return counts


def main() -> None:
    """Print one line for each file and one for all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("predictions", nargs="+", type=Path)
    options = parser.parse_args()
    questions = {one.id: one for one in benchmark.load(DataSource(options.data))}
    total: Counter[str] = Counter()
    for path in options.predictions:
        counts = agreement(path, questions)
        total += counts
        print(described(path.stem, counts))
    print(described("all", total))


def described(name: str, counts: Counter[str]) -> str:
    """Return the line of a file: agreement of both, and both accuracies."""
    n = counts["rows"]
    accuracies = counts["published_right"] / n, counts["right_by_rule"] / n
    return (
        f"{name}: {n:,} rows; with stored extractions {counts['stored']:,} agree, by rule "
        f"{counts['by_rule']:,} ({counts['by_rule'] / n:.1%}), of the others {counts['declined']:,} have no "
        f"answer by rule; accuracy published {accuracies[0]:.1%}, by rule {accuracies[1]:.1%}"
    )


if __name__ == "__main__":
    main()
