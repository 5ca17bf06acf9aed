"""Consecutive processes that share one vLLM, each with a part of every weight (tensor parallel)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed

from mm_cpgd.errors import UserError

Item = TypeVar("Item")


class SharingGroup:
    """The processes that share this process's vLLM.

    vLLM runs in all of them at once, without a word between its schedulers, so all of them have to submit
    the same requests in the same order.

    Args:
        size: k, the number of processes that share one vLLM; process i belongs to group i // k.
        group: their process group; None with k = 1.
    """

    def __init__(self, size: int = 1, group: Any = None) -> None:
        self.size = size
        self.group = group

    def gather(self, own: Sequence[Item]) -> tuple[list[Item], slice]:
        """Return the items of all processes of the group, by rank, and where this process's own are.

        Called on all processes of the group, also by those without items.
        """
        if self.size == 1:
            return list(own), slice(0, len(own))
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, list(own), self.group)
        rank = torch.distributed.get_rank() % self.size
        start = sum(len(part) for part in parts[:rank])
        return [item for part in parts for item in part], slice(start, start + len(own))

    def close(self) -> None:
        """End the process group."""
        if self.group is not None:
            torch.distributed.destroy_process_group(self.group)
            self.group = None


def check_group_size(size: int, processes: int) -> None:
    """Raise ``UserError`` unless groups of ``size`` processes add up to all of them."""
    if processes % size:
        raise UserError(
            f"rollout.vllm.tensor_parallel={size} processes share one vLLM, and the run's {processes} cannot "
            f"be divided into such groups; start a multiple of {size} processes, or set another size"
        )


def open_group(size: int, processes: int) -> SharingGroup:
    """Return this process's group; called on all processes of the run.

    Raises:
        UserError: the processes cannot be divided into groups of this size.
    """
    check_group_size(size, processes)
    if size == 1:
        return SharingGroup()
    rank, mine = torch.distributed.get_rank(), None
    for first in range(0, processes, size):
        ranks = list(range(first, first + size))
        # Every process has to take part in making every group. Conversations are objects in CPU memory.
        made = torch.distributed.new_group(ranks, backend="gloo")
        if rank in ranks:
            mine = made
    return SharingGroup(size, mine)
