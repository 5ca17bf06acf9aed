"""Section "iteration": a whole iteration of this project's trainer and of TRL's GRPOTrainer."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.policies import device, installed
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.models import write_model
from benchmarks.performance.train_step import run_side
from benchmarks.performance.workload import Workload, prepare

SIDES = {
    "mm-cpgd": ("benchmarks.performance.side_ours", ()),
    "TRL": ("benchmarks.performance.side_trl", ("trl", "datasets")),
}


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield a row for each side and engine, and the ratios once both sides are known."""
    shape = settings.shapes[0]
    model = write_model(scratch / shape, shape, settings.visual_tokens)
    work = _work(settings)
    for engine in ("local", "vllm"):
        if engine == "vllm" and (missing := installed("vllm")):
            yield {"engine": engine, "note": missing}
            return
        folder = scratch / f"iteration-{engine}"
        prepare(folder, replace(work, engine=engine), model)
        rows = {}
        for side in SIDES:
            rows[side] = measured(side, engine, folder, work)
            yield rows[side]
        if all("seconds" in row for row in rows.values()):
            yield _ratios(engine, rows["mm-cpgd"], rows["TRL"])


def _work(settings: Settings) -> Workload:
    return Workload(
        prompts=settings.prompts,
        completions=settings.completions,
        visual_tokens=settings.visual_tokens,
        completion_tokens=settings.completion_tokens,
        shape=settings.shapes[0],
        iterations=settings.rounds,
        peer_warmup=settings.peer_warmup,
        peer_iterations=settings.peer_iterations,
        threads=2 if device() == "cpu" else 8,
        tokens=settings.micro_batch_tokens,
        rows=settings.peer_rows,
        lora=0 if installed("peft") else settings.lora,
    )


def measured(side: str, engine: str, folder: Path, work: Workload) -> Row:
    """Return one side's row; a side that fails is a note, and does not keep the other one back."""
    module, packages = SIDES[side]
    row: Row = {"engine": engine, "side": side}
    if missing := installed(*packages):
        return row | {"note": missing}
    try:
        report = run_side(module, folder, work.threads)
    except SystemExit as error:
        lines = str(error).strip().splitlines()
        return row | {"note": f"failed: {lines[-1] if lines else module}"[:300]}
    return row | _numbers(report)


def _numbers(report: dict[str, Any]) -> Row:
    phases = {name: statistics.median(values) for name, values in report["phases"].items()}
    return {
        "seconds": statistics.median(report["seconds"]),
        **{f"{name}, s": value for name, value in phases.items() if name != "reward"},
        "peak GiB": report["peak"] / 1024,
    }


def _ratios(engine: str, ours: Row, peer: Row) -> Row:
    """Return the peer's numbers divided by this project's, of the memory the inverse."""
    row: Row = {"engine": engine, "side": "ratio"}
    row |= {key: peer[key] / ours[key] for key in ours if key.endswith("s") and key in peer and ours[key]}
    return row | {"peak GiB": ours["peak GiB"] / peer["peak GiB"]}
