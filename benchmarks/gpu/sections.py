"""Table of the sections: name, title, and share of the time that it may take."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.settings import Settings

# One line of a section's table: column → value.
Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One section; its function is ``run`` of the module ``benchmarks.gpu.NAME``.

    Attributes:
        title: heading of its table.
        share: of the time that is left when it starts, relative to the shares of the sections after it.
    """

    title: str
    share: float


SECTIONS = {
    "device": Section("Device", 6),
    "numerics": Section("Log-probabilities, entropies and gradients against float32", 10),
    "update": Section("Update", 18),
    "optimizer": Section("Optimizer step on all weights", 4),
    "sampling": Section("Sampling", 12),
    "iteration": Section("A whole iteration beside TRL's GRPOTrainer", 32),
    "profile": Section("Where the time goes", 10),
    "growth": Section("Growth of the update", 10),
    "quickstart": Section("Quickstart", 14),
}


def rows_of(name: str) -> Callable[[Settings, Path], Iterator[Row]]:
    """Return the function that measures a section: settings, scratch folder → rows, as they are found."""
    run: Callable[[Settings, Path], Iterator[Row]] = importlib.import_module(f"benchmarks.gpu.{name}").run
    return run


def limit(name: str, chosen: Sequence[str], left: float) -> float:
    """Return the seconds that a section may take, so that what is left suffices for the sections after it.

    Args:
        name: the section, one of ``chosen``.
        chosen: the sections that run, in order.
        left: seconds until the whole run must have ended.
    """
    ahead = chosen[chosen.index(name) :]
    return left * SECTIONS[name].share / sum(SECTIONS[other].share for other in ahead)
