"""Tensors that are sharded over processes, as safetensors files that every process writes its part of.

The files are those of ``torch.distributed.checkpoint``: each says which part of a tensor it holds, so that
any number of processes, with whole or sharded tensors, can read them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from mm_cpgd.checkpoint.serialization import CheckpointError

# Largest size of one process's file in bytes, unless a single tensor exceeds it. A file is put together in
# memory before it is written.
FILE_BYTES = 2_000_000_000

# It tells of every file that it does not consolidate.
logging.getLogger("torch.distributed.checkpoint.hf_storage").setLevel(logging.WARNING)


def write_shards(folder: Path, tensors: Mapping[str, Tensor], group: Any = None) -> None:
    """Write this process's parts of tensors into ``folder``; called on all processes.

    Args:
        folder: the same on all processes.
        tensors: by name; a plain tensor is the same on all processes, and one of them writes it.
        group: the processes; None: all.

    Raises:
        OSError, SafetensorError: on all processes, if one of them cannot write.
        CheckpointError: likewise, for any other reason.
    """
    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=_files(tensors), save_distributed=True
    )
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        failure = _first_failure(error)
        if isinstance(failure, (OSError, SafetensorError)):
            raise failure from None
        raise CheckpointError(f"{folder} was not written: {failure}") from error


def read_shards(folder: Path, tensors: Mapping[str, Tensor], *, together: bool) -> None:
    """Fill tensors, whole or sharded, from the files in ``folder``.

    Args:
        folder: as ``write_shards`` wrote it, from any number of processes.
        tensors: by name; their memory is overwritten. Names that are not among them are ignored.
        together: whether all processes call this, each for its parts; otherwise each is on its own.

    Raises:
        CheckpointError: a file is damaged or a tensor is missing.
    """
    try:
        dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not together)
    except (CheckpointException, SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        reason = _first_failure(error) if isinstance(error, CheckpointException) else error
        raise CheckpointError(f"{folder} cannot be read: {reason}; use another checkpoint") from error


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in ``folder``.

    Raises:
        CheckpointError: a file is damaged.
    """
    try:
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}; use another checkpoint") from error
    return {name: tuple(entry.size) for name, entry in found.items() if hasattr(entry, "size")}


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of the file, from 1, that each tensor's parts go to."""
    places: dict[str, int] = {}
    number, used = 1, 0
    for name, value in tensors.items():
        local = value.to_local() if hasattr(value, "to_local") else value
        if used and used + local.nbytes > FILE_BYTES:
            number, used = number + 1, 0
        used += local.nbytes
        places[name] = number
    return places


def _first_failure(error: CheckpointException) -> BaseException:
    return next(iter(error.failures.values()))[0]
