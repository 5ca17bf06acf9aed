"""Shares of questions of several processes. ``tests/cli/test_evaluation.py`` runs them."""

from __future__ import annotations

import pytest

from eval.generate.processes import ALONE, Processes, check_sharing
from mm_cpgd.errors import UserError


@pytest.mark.parametrize(("count", "sharing"), [(1, 1), (3, 1), (4, 2), (8, 8)])
def test_shares_hold_every_question_once_and_are_of_one_size(count: int, sharing: int) -> None:
    shares = [Processes(rank, count, sharing).share(range(50)) for rank in range(count)]
    assert sorted(one for share in shares for one in share) == list(range(50))
    sizes = [len(share) for rank, share in enumerate(shares) if rank % sharing == 0]
    assert max(sizes) - min(sizes) <= 1
    # One of the processes that share a vLLM asks for all of them.
    assert [len(share) for rank, share in enumerate(shares) if rank % sharing] == [0] * (count - len(sizes))


def test_alone_there_is_nobody_to_exchange_with() -> None:
    assert (ALONE.is_main, ALONE.asks) == (True, True)
    assert ALONE.gather("a") == ALONE.of_all("a") == ["a"]
    with pytest.raises(UserError, match="mine"):
        ALONE.together(fail)


def fail() -> None:
    raise UserError("mine")


@pytest.mark.parametrize(("sharing", "count"), [(0, 1), (2, 3), (4, 2)])
def test_processes_that_cannot_share_a_vllm_are_refused(sharing: int, count: int) -> None:
    with pytest.raises(UserError, match=f"--tensor-parallel {sharing}"):
        check_sharing(sharing, count)
    # One process alone starts the others itself.
    check_sharing(4, 1)
    check_sharing(2, 4)
