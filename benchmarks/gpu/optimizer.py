"""Section "optimizer": seconds of a step on all weights, and memory of the moments, for each optimizer."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.policies import build, device, installed, memory_limit_noted
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.measurement import Memory, seconds_of

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy

# Options of ``training``.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "stochastic rounding": {"rounding": "stochastic"},
    "adamw_8bit": {"optimizer": "adamw_8bit"},
    "adamw_8bit, stochastic rounding": {"optimizer": "adamw_8bit", "rounding": "stochastic"},
    "offload_moments": {"offload_moments": True},
    "adamw_8bit, offload_moments": {"optimizer": "adamw_8bit", "offload_moments": True},
}


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield a row for each optimizer: steps on bfloat16 weights of the first shape, with equal gradients."""
    policy = build(settings.shapes[0], settings, lora=False).to(torch.bfloat16)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    for name, options in OPTIMIZERS.items():
        yield measured(name, options, policy, settings)


def measured(name: str, options: dict[str, Any], policy: Policy, settings: Settings) -> Row:
    """Return the row of one optimizer."""
    row: Row = {"optimizer": name}
    if "optimizer" in options and (missing := installed("bitsandbytes")):
        return row | {"note": missing}
    with memory_limit_noted(row):
        row |= _numbers(options, policy, settings)
    return row


def _numbers(options: dict[str, Any], policy: Policy, settings: Settings) -> Row:
    from mm_cpgd.config.schema import TrainingConfig
    from mm_cpgd.training.optimizer import build_optimizer

    memory = Memory()
    memory.loaded()
    optimizer = build_optimizer(policy, TrainingConfig(**options))
    first = seconds_of(optimizer.step)
    seconds = statistics.median(seconds_of(optimizer.step) for _ in range(settings.rounds))
    memory.worked()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    here = sum(value.nbytes for value in moments if value.device.type == device())
    count = sum(one.numel() for one in policy.parameters() if one.requires_grad)
    return {
        "first, s": first,
        "seconds": seconds,
        "bytes per weight": sum(value.nbytes for value in moments) / count,
        "moments on the device, GiB": here / 2**30,
        "peak GiB": memory.peak / 1024,
    }
