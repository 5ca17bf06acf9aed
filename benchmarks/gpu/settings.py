"""Settings of the GPU measurements: shapes, sizes of the work, and defaults for a GPU and for a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Sizes of the work; every section reads what it needs.

    Attributes:
        shapes: models, see ``benchmarks.performance.models``; all are updated, the first is used elsewhere.
        prompts: P, each with an image of its own.
        completions: G per prompt.
        visual_tokens: of each image.
        completion_tokens: T of each completion.
        growth_completions: values of G whose update is measured.
        growth_tokens: values of T whose update is measured.
        micro_batch_tokens: largest number of tokens in a forward pass.
        peer_rows: completions in a forward pass of TRL's update.
        peer_warmup: iterations of TRL before its timed ones, see ``Workload``.
        peer_iterations: timed iterations of TRL, of which one can take minutes.
        lora: rank of the adapters.
        update_cases: how many of the updates are measured, the ones that matter most first.
        rounds: timed repetitions, after one that is not timed.
        profiled_tokens: tokens of each completion whose sampling is profiled.
        quickstart_iterations: of the quickstart's run.
        quickstart_rows: held-out rows that it is evaluated on, before and after.
    """

    shapes: tuple[str, ...]
    prompts: int = 8
    completions: int = 8
    visual_tokens: int = 1024
    completion_tokens: int = 256
    growth_completions: tuple[int, ...] = (2, 4, 8, 16, 32)
    growth_tokens: tuple[int, ...] = (256, 1024, 2048, 4096)
    micro_batch_tokens: int = 16384
    peer_rows: int = 16
    peer_warmup: int = 0
    peer_iterations: int = 1
    lora: int = 16
    update_cases: int = 100
    rounds: int = 3
    profiled_tokens: int = 64
    quickstart_iterations: int = 16
    quickstart_rows: int = 200

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """Return the settings whose ``vars`` were written as JSON."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})


GPU = Settings(shapes=("3b", "7b"))
CPU = Settings(
    shapes=("tiny",),
    visual_tokens=64,
    completion_tokens=32,
    growth_completions=(2, 4),
    growth_tokens=(32, 64),
    peer_rows=64,
    rounds=1,
    profiled_tokens=16,
    quickstart_iterations=2,
    quickstart_rows=40,
)
