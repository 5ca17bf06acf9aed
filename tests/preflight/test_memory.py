"""Sum of a plan's items, phase by phase."""

from __future__ import annotations

from collections.abc import Callable

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.memory import estimate_memory, total_of
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Machines, plan_setting


def test_the_total_is_the_sum_of_the_items_in_each_phase() -> None:
    whole = total_of([MemoryItem("a", 1, 2, 3, 4), MemoryItem("b", 10, 0, 0, 1)])
    assert (whole.rollout, whole.loss, whole.layers, whole.step) == (11, 2, 3, 5)
    assert (whole.peak, whole.peak_phase) == (11, "rollout")


def test_items_that_take_nothing_are_left_out(configured: Callable[..., RunConfig], toy: ModelSize) -> None:
    config = configured("toy")
    found = estimate_memory(config, toy, plan_setting(config, toy, Machines()), 10, reference=False)
    assert all(item.peak for item in found)
    assert "buckets of gradients" not in {item.name for item in found}
