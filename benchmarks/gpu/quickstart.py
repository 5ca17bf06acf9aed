"""Section "quickstart": a shortened run of the quickstart's config, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield what the run's metrics say: reward, seconds, accuracy on held-out rows before and after."""
    folder = scratch / "quickstart"
    options = [
        f"output={folder}", f"training.iterations={settings.quickstart_iterations}",
        f"data.eval.limit={settings.quickstart_rows}", "checkpoint.every=0",
    ]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "mm_cpgd", "quickstart", *options], check=True, stdout=subprocess.DEVNULL
    )
    yield {"what": "whole command", "value": time.perf_counter() - started, "unit": "s"}
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    yield from summary([json.loads(line) for line in lines])


def summary(rows: list[dict[str, float]]) -> Iterator[Row]:
    """Yield the figures of a run's metrics."""
    steps = [row for row in rows if "seconds/iteration" in row]
    for phase in ("iteration", "rollout", "update"):
        yield {
            "what": phase,
            "value": fmean(row[f"seconds/{phase}"] for row in steps[1:] or steps),
            "unit": "s",
        }
    yield {"what": "reward, first iteration", "value": steps[0]["reward/mean"]}
    yield {"what": "reward, last iteration", "value": steps[-1]["reward/mean"]}
    held_out = [row["eval/accuracy"] for row in rows if "eval/accuracy" in row]
    if held_out:
        yield {"what": "held-out accuracy, before", "value": held_out[0]}
        yield {"what": "held-out accuracy, after", "value": held_out[-1]}
