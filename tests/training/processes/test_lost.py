"""Which errors say that another process is gone, and which are errors of this one."""

from __future__ import annotations

import pytest
from torch.distributed import DistBackendError, DistStoreError

from mm_cpgd.training.processes.lost import is_closed, is_timeout

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"
CLOSED = [
    RuntimeError(f"{GLOO}pair.cc:561] Connection closed by peer [127.0.0.1]:42637. This is typically caused"),
    RuntimeError(f"{GLOO}pair.cc:545] Read error [127.0.0.1]:2440: Connection reset by peer."),
    DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network"
    ),
    DistStoreError(
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown"
    ),
]
LATE = [
    RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"),
    DistBackendError("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)"),
    DistStoreError("wait timeout after 1000ms, keys: /default_pg/0//cpu//0/1"),
]
OTHER = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"),
    DistBackendError("NCCL error: Duplicate GPU detected: rank 0 and rank 1 both on CUDA device 1000"),
    ConnectionResetError("Connection reset by peer"),  # of a reward's or a server's connection
    RuntimeError("the judge answered: connection reset by peer"),
    ValueError("gloo: Connection closed by peer"),
]


@pytest.mark.parametrize("error", CLOSED)
def test_a_closed_connection_is_recognised(error: Exception) -> None:
    assert is_closed(error)
    assert not is_timeout(error)


@pytest.mark.parametrize("error", LATE)
def test_a_process_that_does_not_answer_is_recognised(error: Exception) -> None:
    assert is_timeout(error)
    assert not is_closed(error)


@pytest.mark.parametrize("error", OTHER)
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    assert not is_closed(error)
    assert not is_timeout(error)


def test_the_cause_of_an_error_counts() -> None:
    wrapped = KeyError("metrics")
    wrapped.__context__ = CLOSED[0]
    assert is_closed(wrapped)
