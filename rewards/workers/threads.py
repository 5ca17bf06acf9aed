"""Parallel map in threads over the usable cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Mapped = TypeVar("Mapped")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[Item], Mapped], items: Iterable[Item]) -> list[Mapped]:
    """Apply ``function`` to every item, in one thread per usable core; results are in the items' order.

    Threads suffice: slow comparisons run in worker processes, for which a thread only waits.
    """
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix="rewards") as executor:
        return list(executor.map(function, items))
