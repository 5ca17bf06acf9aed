"""Processes that share the questions of an evaluation: who asks which, and what they exchange.

Nothing is exchanged while responses are generated, so that no process waits for a slower one until the end.
Without a group (one process) torch is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from mm_cpgd.errors import USER_ERRORS, UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process and the others of an evaluation.

    Attributes:
        rank: its number.
        count: number of processes.
        sharing: consecutive processes that share one vLLM; the first of them asks for all.
        group: process group for objects, on which a process may wait as long as the slowest one takes; None
            with one process.
    """

    rank: int = 0
    count: int = 1
    sharing: int = 1
    group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process scores, writes and prints."""
        return self.rank == 0

    @property
    def asks(self) -> bool:
        """Whether this process asks questions; the others only take part in the computation."""
        return self.rank % self.sharing == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share: every n-th item, so that all have easy and hard ones."""
        return items[self.rank // self.sharing :: self.count // self.sharing] if self.asks else ()

    def gather(self, own: Item) -> list[Item]:
        """Return the objects of all processes, by rank, on the main process; on others ``own`` alone."""
        if self.count == 1:
            return [own]
        from torch.distributed import gather_object

        parts: list[Any] | None = [None] * self.count if self.is_main else None
        gather_object(own, parts, dst=0, group=self.group)
        return [own] if parts is None else parts

    def of_all(self, own: Item) -> list[Item]:
        """Return the objects of all processes, by rank, on every process."""
        if self.count == 1:
            return [own]
        from torch.distributed import all_gather_object

        parts: list[Any] = [None] * self.count
        all_gather_object(parts, own, group=self.group)
        return parts

    def together(self, work: Callable[[], Item]) -> Item:
        """Return the result of ``work``, of which all processes know that it ended without a user's error.

        Raises:
            UserError, DataError: what ``work`` raised here, else on another process, so that none waits.
        """
        result: Any = None
        problem: Exception | None = None
        try:
            result = work()
        except USER_ERRORS as error:
            problem = error
        problems = [one for one in self.of_all(problem) if one is not None]
        if problems:
            raise problem or problems[0]
        return cast(Item, result)


ALONE = Processes()


def check_sharing(sharing: int, count: int) -> None:
    """Raise ``UserError`` unless the processes can be divided into groups that share one vLLM.

    Args:
        sharing: GPUs of one vLLM. One process alone starts the others itself.
        count: number of processes.
    """
    if sharing < 1:
        raise UserError(f"--tensor-parallel {sharing} must be at least 1")
    if count > 1 and count % sharing:
        raise UserError(
            f"--tensor-parallel {sharing}: {count} processes cannot be divided into groups of {sharing} that "
            f"share one vLLM; start a multiple of {sharing}, or one process, which starts the others itself"
        )
