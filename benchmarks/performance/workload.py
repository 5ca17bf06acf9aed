"""Workload for every trainer: a model, rows with images of an exact size, a reward, forced lengths."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.performance.models import PIXELS, write_model

QUESTION = "How many red dots are there?"


@dataclass(frozen=True)
class Workload:
    """Work of one side.

    Attributes:
        prompts: P per iteration, each with its own image.
        completions: G per prompt.
        visual_tokens: exact number of visual tokens of each image.
        completion_tokens: T of every completion, forced.
        updates: optimizer steps on each rollout batch, each over the whole batch.
        reference: whether there is a frozen reference policy (a KL penalty).
        shape: ``tiny``, or ``3b`` or ``7b`` for random weights in the shapes of Qwen2.5-VL.
        iterations: number of timed iterations.
        warmup: iterations before the timed ones.
        peer_warmup: those of the peer, where they differ: without one, it generates four tokens and takes a
            backward pass of one prompt before the clock starts.
        peer_iterations: number of timed iterations of the peer, where it differs.
        threads: CPU threads.
        tokens: largest number of tokens in a forward pass of this project's update; None: its default.
        rows: completions in a forward pass of the peer's update; None for all of them.
        frozen_vision: whether the vision tower is frozen, on both sides.
        checkpointing: whether both sides recompute the layers' activations in the backward pass.
        shared: whether this project shares prefixes; the peer has no such option.
        lora: rank of the adapters that both sides train; 0 trains all weights.
        engine: ``local`` for each side's own sampling, or ``vllm`` in the training process.
        attention: attention implementation of both sides, as transformers names it.
    """

    prompts: int = 8
    completions: int = 8
    visual_tokens: int = 256
    completion_tokens: int = 64
    updates: int = 1
    reference: bool = False
    shape: str = "tiny"
    iterations: int = 3
    warmup: int = 1
    peer_warmup: int | None = None
    peer_iterations: int | None = None
    threads: int = 2
    tokens: int | None = None
    rows: int | None = None
    frozen_vision: bool = True
    checkpointing: bool = True
    shared: bool = True
    lora: int = 0
    engine: str = "local"
    attention: str = "sdpa"

    @property
    def peer_iterations_before(self) -> int:
        """Iterations of the peer before its timed ones."""
        return self.warmup if self.peer_warmup is None else self.peer_warmup

    @property
    def peer_iterations_timed(self) -> int:
        """Timed iterations of the peer."""
        return self.peer_iterations or self.iterations

    @property
    def cuda(self) -> bool:
        """Whether the work runs on a GPU."""
        return torch.cuda.is_available()

    @property
    def dtype(self) -> str:
        """Data type of the weights: bfloat16 on a GPU, since a 3B model with Adam in float32 takes 48 GB."""
        return "bfloat16" if self.cuda else "float32"


def prepare(folder: Path, work: Workload, model: Path | None = None) -> None:
    """Write ``model/``, ``rows.jsonl`` with its images, and ``workload.json``.

    Args:
        folder: created if absent.
        work: what both sides do.
        model: a folder that ``write_model`` has written, to be used in place of a new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model is None:
        write_model(folder / "model", work.shape, work.visual_tokens)
    elif not (folder / "model").exists():
        (folder / "model").symlink_to(model.resolve(), target_is_directory=True)
    _write_rows(folder, work)
    (folder / "workload.json").write_text(json.dumps(asdict(work)), encoding="utf-8")


def read(folder: Path) -> Workload:
    """Return the workload that ``prepare`` wrote."""
    return Workload(**json.loads((folder / "workload.json").read_text(encoding="utf-8")))


def coin(completion: str, example: Any = None) -> float:
    """Return a reward of 0 or 1 from a checksum of the text: pseudo-random, the same for both sides."""
    return float(zlib.crc32(completion.encode()) % 2)


def image_size(visual_tokens: int) -> tuple[int, int]:
    """Return (width, height) in pixels of the most nearly square image with this many visual tokens."""
    short = next(n for n in range(int(visual_tokens**0.5), 0, -1) if visual_tokens % n == 0)
    return visual_tokens // short * PIXELS, short * PIXELS


def images(visual_tokens: int, count: int) -> Iterator[Image.Image]:
    """Yield images of this many visual tokens: smooth noise, since their content does not affect the cost."""
    random = np.random.default_rng(0)
    width, height = image_size(visual_tokens)
    for _ in range(count):
        small = random.integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
        yield Image.fromarray(small).resize((width, height))


def _write_rows(folder: Path, work: Workload) -> None:
    """Write one row per prompt."""
    (folder / "pictures").mkdir(exist_ok=True)
    rows = []
    count = work.prompts * (work.warmup + work.iterations)
    for index, image in enumerate(images(work.visual_tokens, count)):
        path = f"pictures/{index}.png"
        image.save(folder / path)
        rows.append({"id": str(index), "question": QUESTION, "answer": "3", "image": path})
    lines = (json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
