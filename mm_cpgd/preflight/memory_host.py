"""Memory of the CPU side of a run on one machine: offloaded shards, the guard's snapshots, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from mm_cpgd.checkpoint.shards import FILE_BYTES
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.memory_rollout import vllm_weight_bytes
from mm_cpgd.preflight.memory_state import (
    gradient_bytes,
    moment_bytes,
    reference_shard_bytes,
    shard_bytes,
)
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Setting

# The trusted snapshot, and the candidate.
SNAPSHOTS = 2


@dataclass(frozen=True)
class HostItem:
    """Bytes of one item: in every process of a machine, and once more in the run's main process."""

    name: str
    each: int = 0
    main: int = 0
    how: str = ""

    def on_node(self, processes: int) -> int:
        """Return the bytes on the main process's machine, with this number of processes."""
        return processes * self.each + self.main


def host_items(config: RunConfig, size: ModelSize, setting: Setting, *, reference: bool) -> list[HostItem]:
    """Return what the run holds in CPU memory, the libraries, images and rows left out."""
    moments = moment_bytes(size, setting)
    state = (
        gradient_bytes(size, setting) + moments
    )  # gradients are as large as the weights that they belong to
    items = [_loading(size, setting)]
    if setting.sharded and setting.strategy.cpu_offload:
        count = shard_bytes(size, setting) + state
        if reference and not size.adapters:
            count += reference_shard_bytes(size, setting)
        items.append(HostItem("offloaded shards", count, how="weights, gradients, optimizer state"))
    if setting.moments_offloaded:
        items.append(HostItem("offloaded moments", moments, how="AdamW's, of whole weights"))
    snapshots = 0
    if config.guard.action == "rollback" and config.guard.copies == "memory":
        snapshots = SNAPSHOTS * state
    items.append(HostItem("guard's snapshots", snapshots, how="two of weights and moments"))
    items.append(_checkpoint(config, setting, state, snapshots))
    if (
        config.rollout.engine == "vllm"
        and config.rollout.vllm.mode == "colocated"
        and config.rollout.vllm.sleep
    ):
        items.append(
            HostItem("vLLM asleep", vllm_weight_bytes(config, size), how="its weights, during updates")
        )
    return [item for item in items if item.each or item.main]


def _loading(size: ModelSize, setting: Setting) -> HostItem:
    if setting.sharded:
        count = size.total * size.stored
        return HostItem("while loading", main=count, how="the whole model, as stored, in the main process")
    return HostItem("while loading", size.total * setting.weight, how="the whole model in every process")


def _checkpoint(config: RunConfig, setting: Setting, state: int, snapshots: int) -> HostItem:
    if not setting.sharded:
        return HostItem("while saving", main=state, how="weights and moments, in the main process")
    if config.checkpoint.background:
        count = state + snapshots + min(FILE_BYTES, state)
        return HostItem("while saving", count, how="a copy of weights, moments and snapshots; a file of them")
    return HostItem("while saving", min(FILE_BYTES, state), how="one file of the checkpoint")
