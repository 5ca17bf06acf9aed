"""Messages between this process and those that encode prompts: pickled values, and tensors as they are.

The pixels of one prompt are tens of megabytes. Their bytes are received into the tensor's own memory, in one
system call without the interpreter lock; they need no shared memory, which is small in containers.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Bytes of the pickled value that follows.
HEADER = struct.Struct("!Q")


@dataclass(frozen=True)
class _Shape:
    """Stands for a tensor whose bytes follow the message."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def send(connection: socket.socket, value: Any) -> None:
    """Send a value.

    Raises:
        OSError: the other side has ended.
        Exception: of many types, if the value cannot be pickled; then nothing has been sent.
    """
    payload = pickle.dumps(value)
    connection.sendall(HEADER.pack(len(payload)) + payload)


def send_tensors(connection: socket.socket, values: Mapping[str, Any]) -> None:
    """Send tensors by name, and other values among them; errors as in ``send``."""
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}
    shapes = {name: _Shape(tuple(value.shape), value.dtype) for name, value in tensors.items()}
    send(connection, dict(values) | shapes)
    for value in tensors.values():
        connection.sendall(_bytes(value))


def receive(connection: socket.socket, *, pinned: bool = False) -> Any:
    """Return the next value; ``pinned``: tensors in memory from which a GPU can fetch them by itself.

    Raises:
        EOFError: the other side has ended.
        OSError: likewise.
    """
    (header,) = HEADER.unpack(_fill(connection, memoryview(bytearray(HEADER.size))))
    value = pickle.loads(_fill(connection, memoryview(bytearray(header))))
    if isinstance(value, dict):
        for name, place in value.items():
            if isinstance(place, _Shape):
                value[name] = _empty(place, pinned)
                _fill(connection, _bytes(value[name]))
    return value


def _fill(connection: socket.socket, memory: memoryview) -> memoryview:
    done = 0
    while done < len(memory):
        count = connection.recv_into(memory[done:], 0, socket.MSG_WAITALL)
        if not count:
            raise EOFError
        done += count
    return memory


def _empty(place: _Shape, pinned: bool) -> Tensor:
    # Pinned memory is limited, and none where there is no GPU.
    with contextlib.suppress(RuntimeError):
        return torch.empty(place.shape, dtype=place.dtype, pin_memory=pinned)
    return torch.empty(place.shape, dtype=place.dtype)


def _bytes(value: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    array: Any = value.flatten().view(torch.uint8).numpy()
    return memoryview(array)
