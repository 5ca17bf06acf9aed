"""Workload for every trainer: a model, rows with images of an exact size, a reward, forced lengths."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

# One visual token of the Qwen family is a square of two by two patches of 14 pixels.
PIXELS = 28


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
        shape: ``tiny``, or ``3b`` for random weights in the shape of Qwen2.5-VL-3B.
        iterations: number of timed iterations.
        warmup: iterations before the timed ones.
        threads: CPU threads.
        tokens: largest number of tokens in a forward pass of this project's update.
        rows: completions in a forward pass of the peer's update; None for all of them.
        frozen_vision: whether the vision tower is frozen, on both sides.
        checkpointing: whether both sides recompute the layers' activations in the backward pass.
        shared: whether this project shares prefixes; the peer has no such option.
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
    threads: int = 2
    tokens: int = 16384
    rows: int | None = None
    frozen_vision: bool = True
    checkpointing: bool = True
    shared: bool = True

    @property
    def cuda(self) -> bool:
        """Whether the work runs on a GPU."""
        return torch.cuda.is_available()

    @property
    def dtype(self) -> str:
        """Data type of the weights: bfloat16 on a GPU, since a 3B model with Adam in float32 takes 48 GB."""
        return "bfloat16" if self.cuda else "float32"


def prepare(folder: Path, work: Workload) -> None:
    """Write ``model/``, ``rows.jsonl`` with its images, and ``workload.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / "model", work)
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


def _write_model(folder: Path, work: Workload) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from mm_cpgd.policy.families import set_pixel_limits
    from mm_cpgd.policy.model import EMBEDDED

    source = EMBEDDED["embedded:tiny"]
    processor = AutoProcessor.from_pretrained(source)
    set_pixel_limits(processor, PIXELS**2, PIXELS**2 * max(1280, work.visual_tokens))
    processor.save_pretrained(folder)
    if work.shape == "3b":
        model = _random_3b(source)
    else:
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    model.save_pretrained(folder)


def _random_3b(source: Path) -> Any:
    """Return random weights in the published shape of Qwen2.5-VL-3B; the tokenizer stays the tiny one."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(source)
    for name, value in {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "layer_types": ["full_attention"] * 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "initializer_range": 0.02,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }.items():
        setattr(config.text_config, name, value)
    for name, value in {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "initializer_range": 0.02,
    }.items():
        setattr(config.vision_config, name, value)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)


def _write_rows(folder: Path, work: Workload) -> None:
    """Write one row per prompt; images are smooth noise, since their content does not affect the cost."""
    random = np.random.default_rng(0)
    width, height = image_size(work.visual_tokens)
    (folder / "pictures").mkdir(exist_ok=True)
    rows = []
    for index in range(work.prompts * (work.warmup + work.iterations)):
        small = random.integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
        path = f"pictures/{index}.png"
        Image.fromarray(small).resize((width, height)).save(folder / path)
        rows.append(
            {"id": str(index), "question": "How many red dots are there?", "answer": "3", "image": path}
        )
    lines = (json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
