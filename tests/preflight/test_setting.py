"""What a run is planned for: processes, machines, GPUs and number formats."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Machines, plan_machines, plan_setting, read_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 80 * 2**30),
        ("24 GB", 24 * 10**9),
        ("1.5", 3 * 2**29),
        ("512MiB", 2**29),
        ("80gib", 80 * 2**30),
    ],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "80 apples", "0GiB", "-3GiB", "1e3"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"is no size; write for instance 80GiB"):
        read_size(text)


def test_the_present_launch_is_planned_unless_other_numbers_are_given() -> None:
    launch = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
    assert plan_machines({}).processes == 1
    assert (plan_machines(launch).processes, plan_machines(launch).nodes) == (16, 2)
    given = plan_machines(launch, processes=4)
    assert (given.processes, given.nodes, given.per_node) == (4, 1, 4)
    assert plan_machines({}, 32, 4).per_node == 8


def test_processes_that_machines_cannot_share_equally_are_refused() -> None:
    with pytest.raises(UserError, match="--processes 9 cannot be divided among --nodes 2"):
        plan_machines({}, 9, 2)


def test_a_known_gpu_memory_means_that_the_run_is_on_gpus() -> None:
    machines = plan_machines({}, gpu_memory="24GiB")
    assert (machines.gpu_memory, machines.on_gpu) == (24 * 2**30, True)


@pytest.mark.parametrize(
    ("on_gpu", "overrides", "expected"),
    [
        (True, ["training.mixed_precision=auto"], (4, True)),
        (False, ["training.mixed_precision=auto"], (4, False)),
        (False, ["training.mixed_precision=bf16"], (4, True)),
        (True, ["policy.dtype=bfloat16"], (2, False)),
        (True, ["policy.lora={rank: 4}"], (2, False)),
        (False, ["policy.lora={rank: 4}"], (4, False)),
    ],
)
def test_number_formats_are_those_of_the_run_on_its_device(
    configured: Callable[..., RunConfig],
    toy: ModelSize,
    on_gpu: bool,
    overrides: list[str],
    expected: tuple[int, bool],
) -> None:
    setting = plan_setting(configured("toy", *overrides), toy, Machines(on_gpu=on_gpu))
    assert (setting.weight, setting.half) == expected


def test_one_process_has_nothing_to_shard(configured: Callable[..., RunConfig], toy: ModelSize) -> None:
    config = configured("toy", "distributed.strategy=fsdp2")
    assert not plan_setting(config, toy, Machines(1)).sharded
    assert plan_setting(config, toy, Machines(2)).parts == 2
