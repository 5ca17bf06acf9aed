"""Run folder: creation, re-use of a folder that already holds a run, and the summary at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mm_cpgd import __version__
from mm_cpgd.distributed import TRACKING
from mm_cpgd.errors import UserError
from mm_cpgd.tracking import read_metrics
from mm_cpgd.tracking.files import finite, writing
from mm_cpgd.training.resume import Changes

CONFIG = "config.yaml"
# Files that a failed start may leave behind, and everything else that a run writes.
_BEFORE = ("quarantine.jsonl", "quarantine-eval.jsonl")
_RESULTS = ("final", "summary.json", "report.html")
_RUN = (CONFIG, "metrics.jsonl", "rollouts", "checkpoints", "guard", *_RESULTS, TRACKING)


@dataclass(frozen=True)
class ExistingRun:
    """Treatment of a run folder that already holds a run; with neither flag it is an error.

    Attributes:
        resume: continue the run; start one where the folder holds none.
        overwrite: remove the run.
    """

    resume: bool = False
    overwrite: bool = False


def prepare_run_folder(folder: Path, existing: ExistingRun) -> None:
    """Create the run folder, or check that it can be used.

    Raises:
        UserError: it holds another run or something else.
    """
    if existing.resume and existing.overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    taken = (folder / CONFIG).exists()
    if taken and existing.overwrite:
        _empty(folder)
    elif taken and not existing.resume:
        raise UserError(f"{folder} already holds a run; --resume continues it, --overwrite replaces it")
    elif not taken and folder.exists() and any(entry.name not in _BEFORE for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run; choose another output")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def history_of(file: Path, iteration: int, changes: Changes | None) -> list[str]:
    """Return the history of a run: what ``config.yaml`` says of it, and a line for this start.

    Args:
        file: the run's ``config.yaml``; need not exist.
        iteration: the iteration after which the run goes on; 0 at its start.
        changes: what a resumed run does differently; None if it is not resumed.
    """
    earlier = []
    if changes is not None and file.exists():
        earlier = [
            line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")
        ]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if changes is None:
        return [f"started {now}, mm-cpgd {__version__}"]
    lines = "; ".join(changes.lines) or "no setting changed"
    return [*earlier, f"resumed after iteration {iteration}, {now}, mm-cpgd {__version__}: {lines}"]


def write_summary(folder: Path, iterations: int, best: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``summary.json`` from ``metrics.jsonl``; ``docs/training.md`` describes its content."""
    rows = read_metrics(folder / "metrics.jsonl")
    evaluated = {row["iteration"]: row for row in rows if "eval/accuracy" in row}
    before, after = evaluated.get(0, {}), evaluated.get(iterations, {})

    def pair(key: str) -> dict[str, float | None]:
        return {"before": before.get(key), "after": after.get(key)}

    keys = [key for key in {**before, **after} if key.startswith("eval/")]
    kinds = [key for key in keys if key.startswith("eval/accuracy/")]
    counted = {**before, **after}.get("eval/n")
    summary = {
        "accuracy": {**pair("eval/accuracy"), "n": None if counted is None else int(counted)},
        "seconds": {
            "rl": _seconds(rows, "seconds/iteration"),
            "eval": _seconds(rows, "seconds/evaluation"),
        },
        "groups": {key.removeprefix("eval/accuracy/"): pair(key) for key in kinds},
        "other": {
            key.removeprefix("eval/"): pair(key)
            for key in keys
            if key not in ("eval/accuracy", "eval/n", *kinds)
        },
        "iterations": iterations,
        "best": dict(best),
    }
    file = folder / "summary.json"
    with writing(file):
        file.write_text(json.dumps(finite(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return summary


def _seconds(rows: list[dict[str, Any]], key: str) -> float:
    """Return the sum over all rows, so that a resumed run includes the time before it was stopped."""
    return round(sum(row.get(key) or 0.0 for row in rows), 2)


def _empty(folder: Path) -> None:
    """Remove the files of a run and nothing else that the folder may hold."""
    for name in (*_BEFORE, *_RUN):
        entry = folder / name
        with writing(entry):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
