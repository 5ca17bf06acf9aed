"""Cost of a run's monitoring: guard, extra metrics and entropies, as a share of the iteration.

    python -m benchmarks.performance.guard_share
    python -m benchmarks.performance.guard_share configs/quickstart.yaml training.iterations=20

Times every call of the functions that only serve monitoring, in one run: the metrics of a micro-batch, the
entropies beside the log-probabilities, and the guard with its copies. What the loss needs anyway (ratios, the
drift where it is a penalty) is not counted; entropies are, even where the loss uses them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks.performance.train_step import versions
from mm_cpgd import load_config, train
from mm_cpgd.tracking import read_metrics

MONITORING = (
    "mm_cpgd.algorithms.objective.token_metrics",
    "mm_cpgd.policy.logprobs.entropy_of",
)


def measure(config: Path, overrides: list[str]) -> None:
    """Run a config and print seconds and shares."""
    seconds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        chosen = load_config(config, [*overrides, f"output={scratch}/run"])
        patches = [patch(name, timed(name, seconds)) for name in MONITORING]
        for one in patches:
            one.start()
        try:
            train(chosen, console=Console(quiet=True))
        finally:
            for one in patches:
                one.stop()
        rows = [row for row in read_metrics(Path(scratch) / "run" / "metrics.jsonl") if row["iteration"]]
    seconds["guard"] = sum(row.get("seconds/guard", 0.0) for row in rows)
    total = sum(row["seconds/iteration"] for row in rows)
    print(f"{versions()}")
    print(f"{len(rows)} iterations, {total:.1f} s")
    for name, own in [*seconds.items(), ("together", sum(seconds.values()))]:
        print(f"{name:45}{own:8.3f} s{100 * own / total:8.2f} %")


def timed(name: str, seconds: Counter[str]) -> Callable[..., Any]:
    """Return the function of that name, wrapped so that it adds its time to ``seconds``."""
    module, _, function = name.rpartition(".")
    inner = getattr(__import__(module, fromlist=[function]), function)

    def outer(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            seconds[name] += time.perf_counter() - started

    return outer


if __name__ == "__main__":
    given = sys.argv[1:] or ["configs/quickstart.yaml", "guard.action=rollback", "training.iterations=20"]
    measure(Path(given[0]), given[1:])
