"""Run folder: creation, re-use of a folder that already holds a run, and the summary at the end."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mm_cpgd import __version__
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.config.yaml import read_yaml
from mm_cpgd.distributed import TRACKING
from mm_cpgd.errors import UserError
from mm_cpgd.tracking import read_metrics
from mm_cpgd.tracking.files import finite, write_lines, writing
from mm_cpgd.training.processes.run_lock import LOCK, RunLock
from mm_cpgd.training.resume import Changes

CONFIG = "config.yaml"
# Files that a failed start may leave behind, and everything else that a run writes.
_BEFORE = ("quarantine.jsonl", "quarantine-eval.jsonl", LOCK)
_RESULTS = ("final", "summary.json", "report.html")
_FINAL_TEMPORARY = ".final.tmp"
# Sections that every config.yaml of a run has, of this version and earlier ones.
_SECTIONS = {"policy", "data", "rollout", "rewards", "algorithm", "training", "evaluation", "checkpoint"}
_MODEL = (
    r"(model|pytorch_model|adapter_model)\b.*|.*config\.json|(tokenizer|vocab|added_tokens|special_tokens_map|"
    r"chat_template)\.(json|jinja|model|txt)|merges\.txt|.*\.model|.*\.py|README\.md"
)
# What a run writes into its folders; --overwrite removes nothing else.
_WRITTEN = {
    "checkpoints": re.compile(r"step-\d+(\.replaced)?|\.step-.*\.tmp"),
    "rollouts": re.compile(r"iteration-\d+\.jsonl|images|\..*\.tmp"),
    "final": re.compile(rf"{_MODEL}|adapter"),
    "final/adapter": re.compile(_MODEL),
}
_RUN = (CONFIG, _FINAL_TEMPORARY, "metrics.jsonl", "rollouts", "checkpoints", "guard", *_RESULTS, TRACKING)


@dataclass(frozen=True)
class ExistingRun:
    """Treatment of a run folder that already holds a run; with neither flag it is an error.

    Attributes:
        resume: continue the run; start one where the folder holds none.
        overwrite: remove the run.
    """

    resume: bool = False
    overwrite: bool = False


def prepare_run_folder(folder: Path, existing: ExistingRun, lock: RunLock | None = None) -> None:
    """Create the run folder, or check that it can be used, and take its lock.

    Raises:
        UserError: it holds another run or something else, another run is writing into it, or it cannot be
            written.
    """
    if existing.resume and existing.overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    in_the_way = next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)
    if in_the_way is not None:
        raise UserError(f"output: {in_the_way} is a file, not a folder; choose another output")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        holds_run = _holds_run(folder)
        # Temporary files of a lock may stay behind when a start is killed.
        is_empty = all(entry.name.startswith((*_BEFORE, f".{LOCK}.")) for entry in folder.iterdir())
    if not holds_run and not is_empty:
        raise UserError(f"{folder} is not empty and holds no run of mm-cpgd; choose another output")
    if holds_run and not (existing.overwrite or existing.resume):
        raise UserError(f"{folder} already holds a run; --resume continues it, --overwrite replaces it")
    if lock is not None:
        lock.acquire()
    if holds_run and existing.overwrite:
        _check_foreign(folder)
        _empty(folder)


def _holds_run(folder: Path) -> bool:
    """Return whether this program has written a run there: its config, and not just any ``config.yaml``."""
    file = folder / CONFIG
    if not file.is_file():
        return False
    try:
        keys = set(read_yaml(file))
    except UserError:
        return False
    if not keys or not keys <= set(RunConfig.model_fields):
        return False
    steps = (folder / "checkpoints").glob("step-*")
    return keys >= _SECTIONS or (folder / "metrics.jsonl").exists() or any(steps)


def _check_foreign(folder: Path) -> None:
    """Raise ``UserError`` if folders of the run hold files that it has not written."""
    foreign = [
        entry
        for name, written in _WRITTEN.items()
        if (folder / name).is_dir()
        for entry in sorted((folder / name).iterdir())
        if not written.fullmatch(entry.name)
    ]
    if foreign:
        names = ", ".join(str(entry) for entry in foreign[:5]) + (" …" if len(foreign) > 5 else "")
        raise UserError(
            f"--overwrite would remove what no run has written: {names}; move it, or choose another output"
        )


def write_final(folder: Path, save: Callable[[Path], None]) -> None:
    """Write ``final/``, complete or not at all; an older one is replaced.

    Args:
        folder: the run folder.
        save: writes the policy into the folder passed to it.

    Raises:
        UserError: it cannot be written.
    """
    temporary, final = folder / _FINAL_TEMPORARY, folder / "final"
    with writing(final):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            save(temporary)
        except SafetensorError as error:  # its text holds the system's error
            raise OSError(str(error)) from error
        else:
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
    write_lines(file, [json.dumps(finite(summary), indent=2, allow_nan=False)])
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
