"""Section "iteration": a whole iteration of this project's trainer and of TRL's GRPOTrainer."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.policies import device, installed
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.models import write_model
from benchmarks.performance.train_step import Side
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
        work = replace(work, engine=engine)
        prepare(folder, work, model)
        rows = {}
        # On a GPU both load their models at the same time; on a CPU that would take as long.
        begin = functools.partial(_begin, folder=folder, work=work, logs=scratch.parent)
        begun = {side: begin(side, waits=True) for side in SIDES} if device() == "cuda" else {}
        for side in SIDES:
            rows[side] = {"engine": engine, "side": side} | measured(begun.get(side) or begin(side))
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


def _begin(name: str, *, folder: Path, work: Workload, logs: Path, waits: bool = False) -> Side | str:
    """Start a side's process; return why not where packages are missing."""
    module, packages = SIDES[name]
    log = logs / f"{module.rpartition('.')[2]}-{work.engine}.log"
    return installed(*packages) or Side(module, folder, work.threads, log, waits=waits)


def measured(side: Side | str) -> Row:
    """Return one side's numbers; a side that fails is a note, and does not keep the other one back."""
    if isinstance(side, str):
        return {"note": side}
    try:
        report = side.report()
    except SystemExit as error:
        lines = str(error).strip().splitlines()
        return {"note": f"failed: {lines[-1] if lines else side.module}"[:300]}
    return _numbers(report)


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
