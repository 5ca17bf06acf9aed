"""Measurements that a side reports: seconds by phase, and memory before and at the peak of the work."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 1024**2


class Memory:
    """Peak memory in MiB: of the GPU's allocator where there is one, else of this process."""

    def __init__(self) -> None:
        self.before = 0.0
        self.peak = 0.0

    def loaded(self) -> None:
        """Record the memory in use once model and data are loaded, before the work begins."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / MIB
        else:
            self.before = _resident()

    def worked(self) -> None:
        """Record the peak after the last iteration."""
        if torch.cuda.is_available():
            self.peak = torch.cuda.max_memory_allocated() / MIB
        else:
            self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def await_turn() -> None:
    """Wait, if the command line says ``--wait``, until standard input is closed: the other side works now."""
    if "--wait" in sys.argv:
        sys.stdin.read()


def wait() -> None:
    """Wait until the GPU, if there is one, has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes, the GPU's work included."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / MIB


def finish(seconds: list[float], phases: dict[str, list[float]], memory: Memory) -> None:
    """Print the report as the last line."""
    report = {"seconds": seconds, "phases": phases, "before": memory.before, "peak": memory.peak}
    print(json.dumps(report), flush=True)
