"""Weights that reach vLLM servers as files in a folder that trainer and servers see at the same path."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from mm_cpgd.rollout.vllm.client import ServerFailed, VllmClient

# Bytes of a file, and so of the weights that the main process holds at a time.
FILE_BYTES = 512_000_000
INDEX = "model.safetensors.index.json"
_PREFIX = "weights-"
_OWN = re.compile(rf"\.?{_PREFIX}[0-9a-f]{{8}}-\d+")


class WeightsFolder:
    """A folder with the newest weights in a subfolder, which is complete or absent.

    Args:
        root: holds nothing else; created if absent. Servers must see it at the same path.
        tied: further names of a weight by its name, see ``tied_names``.
        dtype: number format in which servers compute; wider weights are written in it. None: unknown.
        file_bytes: bytes of a file, unless one weight exceeds it.
    """

    resends = True

    def __init__(
        self,
        root: Path,
        tied: Mapping[str, list[str]] | None = None,
        dtype: torch.dtype | None = None,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self.root = root.resolve()
        self.tied = tied or {}
        self.dtype = dtype
        self.file_bytes = file_bytes
        self._owner = uuid.uuid4().hex[:8]
        self._count = 0

    @property
    def version(self) -> str:
        """Name of the newest weights, different for every run and every update."""
        return f"{self._owner}-{self._count}"

    @property
    def newest(self) -> Path:
        """Folder of the newest weights."""
        return self.root / f"{_PREFIX}{self.version}"

    def store(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Write weights as the newest; earlier ones are removed by ``clean``.

        Raises:
            OSError, SafetensorError: they cannot be written; nothing of them is left.
        """
        self._count += 1
        hidden = self.root / f".{self.newest.name}"
        try:
            hidden.mkdir(parents=True)
            write_weights(self._renamed(weights), hidden, self.file_bytes)
            hidden.rename(self.newest)
        except (OSError, SafetensorError):
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    def send(self, client: VllmClient, version: str) -> str:
        """Let a server load the newest weights; return its stamp from then on.

        That it loads is noted first: a server that starts anew after that has lost it. The version is noted
        last: other processes take a server that has it for one that has loaded the weights.
        """
        own = f"{version}/{uuid.uuid4().hex[:8]}"
        loading = client.set_version(f"loading {own}")
        client.reload(self.root / f"{_PREFIX}{version}")
        if client.stamp() == loading:
            stamp = client.set_version(own)
            # A vLLM without versions keeps its stamp.
            if stamp in (f"version {own}", loading):
                return stamp
        raise ServerFailed("was started anew, or got other weights, while it loaded these")

    def clean(self) -> None:
        """Remove all weights but the newest, also those that a killed run has left."""
        for folder in self._folders():
            if folder != self.newest:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove all weights, and the folder if it is empty then."""
        for folder in self._folders():
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def _folders(self) -> list[Path]:
        """Return the folders that a run has written here, complete or not."""
        return [folder for folder in self.root.glob(f"*{_PREFIX}*") if _OWN.fullmatch(folder.name)]

    def _renamed(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights under all their names, in the written format."""
        for name, value in weights:
            if self.dtype is not None and value.dtype.itemsize > self.dtype.itemsize:
                value = value.to(self.dtype)
            for one in (name, *self.tied.get(name, ())):
                yield one, value


def write_weights(weights: Iterable[tuple[str, Tensor]], folder: Path, file_bytes: int = FILE_BYTES) -> None:
    """Write weights into safetensors files with an index; those of one file are in memory at a time."""
    places: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(in_buckets(weights, file_bytes), 1):
        name = f"model-{number:05}.safetensors"
        save_file(
            {key: value.to("cpu", copy=True).contiguous() for key, value in tensors},
            folder / name,
            metadata={"format": "pt"},
        )
        places |= {key: name for key, _ in tensors}
        total += sum(value.nbytes for _, value in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, sort_keys=True), encoding="utf-8")


def in_buckets(weights: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[list[tuple[str, Tensor]]]:
    """Yield weights in lists of at most ``limit`` bytes, unless one alone exceeds it."""
    bucket: list[tuple[str, Tensor]] = []
    used = 0
    for name, value in weights:
        if bucket and used + value.nbytes > limit:
            yield bucket
            bucket, used = [], 0
        bucket.append((name, value))
        used += value.nbytes
    if bucket:
        yield bucket


def tied_names(model: Any) -> dict[str, list[str]]:
    """Return the further names of each weight that several modules share, by its first name.

    vLLM's build for CPUs packs the head of tied embeddings into a copy, and packs it anew only if a weight
    arrives under the head's own name.
    """
    first: dict[int, str] = {}
    further: dict[str, list[str]] = {}
    parameters: Iterable[tuple[str, nn.Parameter]] = model.named_parameters(remove_duplicate=False)
    for name, value in parameters:
        plain = name.replace(".base_layer.", ".")
        if id(value) in first:
            further.setdefault(first[id(value)], []).append(plain)
        else:
            first[id(value)] = plain
    return further
