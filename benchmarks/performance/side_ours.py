"""This project's trainer on a prepared workload; prints JSON.

python -m benchmarks.performance.side_ours FOLDER
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from benchmarks.performance.measurement import Memory, await_turn, finish
from benchmarks.performance.workload import Workload, read


def main(folder: Path) -> None:
    work = read(folder)
    torch.set_num_threads(work.threads)
    _force_lengths()
    config = _config(folder, work)
    shutil.rmtree(folder / "run", ignore_errors=True)
    memory = Memory()
    _run(config, memory)
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["iteration"] > work.warmup]
    phases = {
        "rollout": [row["seconds/rollout"] for row in rows],
        "reward": [row["seconds/reward"] for row in rows],
        "update": [row["seconds/update"] for row in rows],
    }
    finish([row["seconds/iteration"] for row in rows], phases, memory)


def _force_lengths() -> None:
    """Forbid end tokens, so that completions reach their limit, as the peer is configured to do."""
    from mm_cpgd.policy import Policy

    ends, forbidden = Policy.end_ids.fget, Policy.forbidden_ids.fget  # type: ignore[attr-defined]
    Policy.forbidden_ids = property(lambda self: sorted({*forbidden(self), *ends(self)}))  # type: ignore[assignment]


def _config(folder: Path, work: Workload) -> Any:
    from mm_cpgd import load_config

    kl = [{"name": "kl", "coefficient": 0.04}] if work.reference else []
    settings = {
        "name": "speed",
        "output": str(folder / "run"),
        "policy": {
            "model": str(folder / "model"),
            "dtype": work.dtype,
            "freeze_vision": work.frozen_vision,
            "gradient_checkpointing": work.checkpointing,
            "attention": work.attention,
            **({"lora": {"rank": work.lora, "alpha": 2 * work.lora}} if work.lora else {}),
        },
        "data": {"train": {"path": str(folder / "rows.jsonl")}},
        "rollout": {
            "prompts": work.prompts,
            "completions": work.completions,
            "max_new_tokens": work.completion_tokens,
            "engine": work.engine,
            **({} if work.shared else {"shared_prefix": False}),
        },
        "rewards": [{"rule": f"{Path(__file__).with_name('workload.py')}:coin", "name": "coin"}],
        "algorithm": {"recipe": "grpo", "regularizers": kl},
        "training": {
            "iterations": work.warmup + work.iterations,
            "inner_epochs": work.updates,
            "micro_batch_tokens": work.tokens,
            "learning_rate": 1e-6,
            "threads": work.threads,
        },
        "checkpoint": {"every": 0},
        "evaluation": {"before": False, "after": False},
    }
    path = folder / "ours.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_config(path, [])


def _run(config: Any, memory: Memory) -> None:
    from mm_cpgd import train
    from mm_cpgd.training.trainer import Trainer

    begin = Trainer.run

    def run(self: Trainer, progress: Any) -> None:
        await_turn()
        memory.loaded()
        begin(self, progress)
        memory.worked()

    Trainer.run = run  # type: ignore[method-assign]
    train(config, overwrite=True, console=Console(file=io.StringIO()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
