"""Estimate of a run's memory on each GPU, item by item, from the model's dimensions; no weights are loaded.

Not included: the libraries' own buffers (CUDA context, NCCL, matrix products), and the allocator's
fragmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.memory_item import PHASES, MemoryItem
from mm_cpgd.preflight.memory_rollout import engine_items
from mm_cpgd.preflight.memory_state import state_items
from mm_cpgd.preflight.memory_update import update_items
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Setting


def estimate_memory(
    config: RunConfig, size: ModelSize, setting: Setting, prompt_tokens: int, *, reference: bool
) -> list[MemoryItem]:
    """Return the items of one process's memory on its GPU; of several processes, of the one with the most.

    Args:
        config: the run's config.
        size: size of its model.
        setting: layout of its memory.
        prompt_tokens: length of the longest prompt; all prompts are assumed to be that long.
        reference: whether the objective needs a reference policy.
    """
    items = [
        *state_items(config, size, setting, prompt_tokens, reference=reference),
        *update_items(config, size, setting, prompt_tokens),
        *engine_items(config, size, setting, prompt_tokens),
    ]
    return [item for item in items if item.peak]


def total_of(items: Sequence[MemoryItem]) -> MemoryItem:
    """Return the sum of all items."""
    sums = {phase: sum(getattr(item, phase) for item in items) for phase in PHASES}
    return MemoryItem("total", **sums)
