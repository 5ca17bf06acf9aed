"""Files of sharded tensors: written by several processes, read by any number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from mm_cpgd.checkpoint import shards
from mm_cpgd.checkpoint.serialization import CheckpointError
from mm_cpgd.checkpoint.shards import read_shards, shapes_in, write_shards
from tests.fakes.processes import on_processes

WHOLE = {
    "weights.a": torch.arange(21.0).view(7, 3),
    "weights.b": torch.arange(4).bfloat16(),
    "moments.exp_avg.a": torch.full((7, 3), 2.5),
    "weights.row": torch.ones(1, 4),
}


def distributed(values: dict[str, Tensor]) -> dict[str, DTensor]:
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    return {name: distribute_tensor(value, mesh, [Shard(0)]) for name, value in values.items()}


def write(folder: Path, file_bytes: int) -> None:
    shards.FILE_BYTES = file_bytes
    write_shards(folder, distributed(WHOLE))


def read(folder: Path) -> dict[str, Tensor]:
    empty = distributed({name: torch.zeros_like(value) for name, value in WHOLE.items()})
    read_shards(folder, empty, together=True)
    return {name: value.full_tensor() for name, value in empty.items()}


def assert_whole(found: dict[str, Tensor]) -> None:
    assert found.keys() == WHOLE.keys()
    for name, value in WHOLE.items():
        assert found[name].dtype is value.dtype
        assert torch.equal(found[name], value)


@pytest.mark.parametrize(("writers", "file_bytes"), [(2, 10**9), (3, 1)])
def test_any_number_of_processes_reads_what_others_wrote(
    tmp_path: Path, writers: int, file_bytes: int
) -> None:
    on_processes(writers, write, tmp_path / "files", file_bytes)
    assert shapes_in(tmp_path / "files") == {name: tuple(value.shape) for name, value in WHOLE.items()}
    for found in on_processes(2, read, tmp_path / "files"):
        assert_whole(found)
    alone = {name: torch.zeros_like(value) for name, value in WHOLE.items()}
    read_shards(tmp_path / "files", alone, together=False)
    assert_whole(alone)


def test_a_missing_tensor_and_a_damaged_file_are_one_message(tmp_path: Path) -> None:
    on_processes(2, write, tmp_path / "files", 10**9)
    with pytest.raises(CheckpointError, match=r"cannot be read.*use another checkpoint"):
        read_shards(tmp_path / "files", {"weights.other": torch.zeros(2)}, together=False)
    (file, *_) = (tmp_path / "files").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="cannot be read"):
        shapes_in(tmp_path / "files")
