"""Growth of an iteration's time and memory with group size, image size and completion length.

    python -m benchmarks.performance.growth
    python -m benchmarks.performance.growth --shape 3b --dimension completions

Each point runs in its own process, with and without shared prefixes alternately. For the group size a least
squares fit separates the update's fixed cost (prompts and images, the optimizer) from the cost of each
further completion: sharing is complete when the fixed cost holds the whole prefix, and a completion
costs the same whether its image is small or large, up to its own attention to the prefix.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.train_step import arguments, run_side, versions, workload
from benchmarks.performance.workload import Workload, prepare

POINTS = {
    "completions": (2, 4, 8, 16, 32),
    "visual_tokens": (64, 128, 256, 512, 1024, 2048),
    "completion_tokens": (16, 32, 64, 128, 256),
}


def measure(work: Workload) -> dict[str, Any]:
    """Run one point and return seconds of rollout and update, and the working memory in MiB."""
    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch), work)
        report = run_side("benchmarks.performance.side_ours", Path(scratch), work.threads)
    return {
        "rollout": statistics.median(report["phases"]["rollout"]),
        "update": statistics.median(report["phases"]["update"]),
        "memory": report["peak"] - report["before"],
    }


def grow(work: Workload, dimension: str, points: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure every point of a dimension, with and without shared prefixes, and print it."""
    rows = []
    print(f"\n{dimension:>18}{'rollout s':>20}{'update s':>20}{'working MiB':>22}")
    print(f"{'':18}{'shared   unshared':>20}{'shared   unshared':>20}{'shared   unshared':>22}")
    for point in points:
        at = replace(work, **{dimension: point})
        row = {"point": point} | {
            name: measure(replace(at, shared=shared))
            for name, shared in (("shared", True), ("unshared", False))
        }
        rows.append(row)
        shared, unshared = row["shared"], row["unshared"]
        print(
            f"{point:18}"
            + "".join(f"{shared[k]:10.3f}{unshared[k]:10.3f}" for k in ("rollout", "update"))
            + f"{shared['memory']:11.0f}{unshared['memory']:11.0f}",
            flush=True,
        )
    return rows


def fit(rows: list[dict[str, Any]], mode: str) -> tuple[float, float]:
    """Return the update's fixed seconds, and its seconds for each further completion per prompt."""
    sizes = np.array([row["point"] for row in rows], dtype=float)
    seconds = np.array([row[mode]["update"] for row in rows])
    # Relative errors: the large groups would otherwise decide alone.
    weights = 1 / seconds
    columns = np.stack([np.ones_like(sizes), sizes], 1) * weights[:, None]
    fixed, each = np.linalg.lstsq(columns, seconds * weights, rcond=None)[0]
    return float(fixed), float(each)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dimension", choices=sorted(POINTS), action="append")
    parser.add_argument("--points", type=int, nargs="+", help="in place of the default points")
    parser.add_argument("--json", action="store_true", help="print JSON as the last line")
    options = parser.parse_args()
    found: dict[str, Any] = {"versions": versions()}
    for dimension in options.dimension or POINTS:
        rows = grow(workload(options), dimension, tuple(options.points or POINTS[dimension]))
        found[dimension] = rows
        if dimension == "completions" and len(rows) > 1:
            found["fit"] = {mode: fit(rows, mode) for mode in ("shared", "unshared")}
            for mode, (fixed, each) in found["fit"].items():
                print(f"{mode:>18}: update = {fixed:.3f} s + {each:.4f} s for each completion per prompt")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
