"""Processes that share a vLLM: who belongs to a group, and what is gathered from it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.group import SharingGroup, check_group_size, open_group


def test_alone_all_items_are_ones_own() -> None:
    items, own = SharingGroup().gather(["a", "b"])
    assert items[own] == items == ["a", "b"]


def test_groups_have_to_add_up_to_all_processes() -> None:
    check_group_size(2, 4)
    check_group_size(1, 3)
    with pytest.raises(UserError, match=r"rollout\.vllm\.tensor_parallel=2 .*the run's 3 cannot"):
        check_group_size(2, 3)


def gathered_in(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=250), world_size=4, rank=rank
    )
    group = open_group(2, 4)
    items, own = group.gather([(rank, number) for number in range(rank)])
    Path(folder, str(rank)).write_text(json.dumps([items, items[own]]))
    group.close()
    torch.distributed.destroy_process_group()


def test_consecutive_processes_gather_their_items_by_rank(tmp_path: Path) -> None:
    context: Any = torch.multiprocessing.spawn(gathered_in, (str(tmp_path),), nprocs=4, join=False)
    while not context.join(60):
        pass
    read = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(4)]
    assert read[0] == [[[1, 0]], []]
    assert read[1] == [[[1, 0]], [[1, 0]]]
    assert read[2] == [[[2, 0], [2, 1], [3, 0], [3, 1], [3, 2]], [[2, 0], [2, 1]]]
    assert read[3] == [[[2, 0], [2, 1], [3, 0], [3, 1], [3, 2]], [[3, 0], [3, 1], [3, 2]]]
