"""CPU memory of a machine, against numbers computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.distributed import Strategy
from mm_cpgd.preflight.memory_host import HostItem, host_items
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Machines, Setting

Configured = Callable[..., RunConfig]
DDP = Setting(Machines(4, 2), Strategy(), 4, half=False)
FSDP2 = replace(DDP, strategy=Strategy(sharded=True))
SHARD = 2 * 13 * 8 + 3 * 3 * 8


def items(
    config: RunConfig, size: ModelSize, setting: Setting, reference: bool = False
) -> dict[str, HostItem]:
    return {item.name: item for item in host_items(config, size, setting, reference=reference)}


def test_an_item_counts_for_every_process_of_a_machine_and_once_for_the_main_one() -> None:
    assert HostItem("x", each=10, main=3).on_node(8) == 83


def test_whole_weights_are_loaded_by_every_process_and_shards_by_the_main_one(
    configured: Configured, toy: ModelSize
) -> None:
    whole, shards = (items(configured("toy"), toy, one)["while loading"] for one in (DDP, FSDP2))
    assert (whole.each, whole.main) == (1240 * 4, 0)
    assert (shards.each, shards.main) == (0, 1240 * 2)


def test_offloaded_shards_are_weights_gradients_moments_and_a_reference(
    configured: Configured, toy: ModelSize
) -> None:
    setting = replace(DDP, strategy=Strategy(sharded=True, cpu_offload=True))
    assert items(configured("toy"), toy, setting)["offloaded shards"].each == 4 * SHARD * 4
    assert items(configured("toy"), toy, setting, True)["offloaded shards"].each == 5 * SHARD * 4


def test_the_guard_keeps_two_snapshots_of_weights_and_moments_if_it_may_roll_back(
    configured: Configured, toy: ModelSize
) -> None:
    rolls = configured("toy", "guard.action=rollback")
    assert "guard's snapshots" not in items(configured("toy"), toy, DDP)
    assert items(rolls, toy, DDP)["guard's snapshots"].each == 2 * 3 * 1040 * 4
    assert items(rolls, toy, FSDP2)["guard's snapshots"].each == 2 * 3 * SHARD * 4
    on_disk = configured("toy", "guard.action=rollback", "guard.copies=disk")
    assert "guard's snapshots" not in items(on_disk, toy, DDP)


def test_a_checkpoint_in_the_background_is_written_from_a_copy(
    configured: Configured, toy: ModelSize
) -> None:
    state = 3 * SHARD * 4
    assert items(configured("toy"), toy, FSDP2)["while saving"].each == state
    behind = configured("toy", "checkpoint.background=true")
    assert items(behind, toy, FSDP2)["while saving"].each == 2 * state
    assert items(behind, toy, DDP)["while saving"].main == 3 * 1040 * 4


def test_a_sleeping_vllm_keeps_its_weights_in_cpu_memory(configured: Configured, toy: ModelSize) -> None:
    config = configured("toy", "rollout.engine=vllm", "rollout.vllm.sleep=true")
    assert items(config, toy, DDP)["vLLM asleep"].each == 1240 * 2
