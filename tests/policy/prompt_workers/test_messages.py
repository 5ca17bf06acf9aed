"""Values and tensors arrive as they were sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mm_cpgd.policy.prompt_workers.messages import receive, send, send_tensors


def exchange(write: Callable[[socket.socket], None]) -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=write, args=(theirs,))
        thread.start()
        value = receive(ours)
        thread.join()
        return value


def test_tensors_keep_their_format_shape_order_and_bits() -> None:
    sent = {
        "pixels": torch.randn(3000, 700),  # more than the socket holds at a time
        "half": torch.tensor([[float("nan"), -0.0]], dtype=torch.bfloat16),
        "transposed": torch.arange(6).view(2, 3).T,
        "flags": torch.tensor([True, False]),
        "single": torch.tensor(7),
        "nothing": torch.zeros(0, 4),
        "sizes": [(3, 4)],
    }
    found = exchange(lambda connection: send_tensors(connection, sent))
    assert list(found) == list(sent)
    assert found.pop("sizes") == sent.pop("sizes")
    for name, value in sent.items():
        assert isinstance(value, torch.Tensor)
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(
            found[name].flatten().view(torch.uint8), value.contiguous().flatten().view(torch.uint8)
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without pinned memory")
def test_without_pinned_memory_tensors_arrive_in_ordinary_memory() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_tensors(theirs, {"pixels": torch.arange(6.0).view(2, 3)})
        assert receive(ours, pinned=True)["pixels"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_arrive_in_pinned_memory() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_tensors(theirs, {"pixels": torch.arange(6.0).view(2, 3)})
        found = receive(ours, pinned=True)["pixels"]
        assert found.is_pinned()
        assert found.cuda(non_blocking=True).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_values_arrive_one_by_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for value in (None, "text", {"a": 1}):
            send(theirs, value)
        assert [receive(ours) for _ in range(3)] == [None, "text", {"a": 1}]


def test_a_value_that_cannot_be_pickled_is_an_error_before_anything_is_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(Exception, match="pickle"):
            send_tensors(theirs, {"pixels": torch.zeros(2), "odd": lambda: None})
        send(theirs, "next")
        assert receive(ours) == "next"


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\0\0\0\0\x09half"])
def test_the_end_of_the_other_side_is_the_end_of_the_file(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(sent)
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours)
