"""Section "device": the card, the versions, and what its matrix products and its memory reach."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.measurement import seconds_of
from benchmarks.performance.train_step import versions

REPETITIONS = 20
# Side of the square matrices, and bytes of the copy: large enough to fill a GPU, small enough for a CPU.
SIDE = {"cuda": 8192, "cpu": 1024}
COPIED = {"cuda": 2**32, "cpu": 2**26}
PACKAGES = ("accelerate", "triton", "peft", "vllm", "flash_attn")


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield one row for each property."""
    for name, value in {"device": device_name(), **versions(), **_others()}.items():
        yield {"what": name, "value": value}
    yield {"what": "matrix product", "value": matmul_rate() / 1e12, "unit": "TFLOP/s"}
    yield {"what": "memory copy, read and written", "value": copy_rate() / 1e9, "unit": "GB/s"}
    yield {"what": "start of a small operation", "value": launch_seconds() * 1e6, "unit": "µs"}


def device_name() -> str:
    """Return the card and its memory, or the number of CPUs."""
    if not torch.cuda.is_available():
        return f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    card = torch.cuda.get_device_properties(0)
    return f"{card.name}, {card.total_memory / 2**30:.0f} GiB"


def matmul_rate() -> float:
    """Return operations per second of a square matrix product: bfloat16 on a GPU, float32 on a CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side, dtype = SIDE[device], torch.bfloat16 if device == "cuda" else torch.float32
    # Random values: products of zeros take less power, and run faster than real ones.
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds_each(partial(torch.mm, one, other))


def copy_rate() -> float:
    """Return bytes per second of a copy within the device's memory, those read and those written."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.ones(COPIED[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _seconds_each(lambda: target.copy_(source))


def launch_seconds() -> float:
    """Return the seconds from one small operation to the next: what a step of many of them costs at least."""
    value = torch.zeros(64, device="cuda" if torch.cuda.is_available() else "cpu")
    count = 1000

    def work() -> None:
        for _ in range(count):
            value.add_(1)

    return _seconds_each(work) / count


def _seconds_each(work: Callable[[], object]) -> float:
    """Return the median seconds of a call, each measured over several: a launch takes time by itself."""
    several = 5

    def repeat() -> None:
        for _ in range(several):
            work()

    repeat()
    return statistics.median(seconds_of(repeat) for _ in range(REPETITIONS // several)) / several


def _others() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
