r"""Agreement of MathVision's official scoring with the verdicts in published outputs.

    python -m benchmarks.evaluation.mathvision_agreement --data test.jsonl outputs

The files are those of the benchmark's repository, github.com/mathllm/MATH-V, after its evaluation: each row
has the response and the published verdict ``correct``. Rows that differ are printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from data import Example
from eval.benchmark import DataSource
from eval.benchmarks.mathvision import benchmark
from eval.predictions import read_predictions


def differences(path: Path, questions: Mapping[str, Example]) -> tuple[int, list[str]]:
    """Return the number of rows with a published verdict, and a line for each that differs."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    published = {str(row["id"]): row["correct"] for row in rows if "correct" in row}
    lines = []
    for response in read_predictions(path, benchmark):
        if response.id not in published:
            continue
        verdict = benchmark.official(questions[response.id], response)
        if (verdict.score == 1) != published[response.id]:
            lines.append(f"  {response.id}: published {published[response.id]}, {verdict.reason}")
    return len(published), lines


def main() -> None:
    """Print one line for each file, the rows that differ, and the total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("predictions", nargs="+", type=Path, help="files, or folders of *.jsonl")
    options = parser.parse_args()
    questions = {one.id: one for one in benchmark.load(DataSource(options.data))}
    total = differing = 0
    files = [one for path in options.predictions for one in sorted(path.rglob("*.jsonl")) or [path]]
    for path in files:
        rows, lines = differences(path, questions)
        total, differing = total + rows, differing + len(lines)
        print("\n".join([f"{path.name}: {rows:,} rows, {len(lines)} differ", *lines]), flush=True)
    print(f"{len(files)} files: {total:,} rows, {differing} differ")


if __name__ == "__main__":
    main()
