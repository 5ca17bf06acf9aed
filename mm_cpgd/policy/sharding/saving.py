"""Sharded weights written as ordinary model files; no process ever holds more than one file of them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from mm_cpgd.policy.lora.layers import named_sizes, named_weights

# Largest size of a file, in bytes, unless a single layer exceeds it; that of transformers' save_pretrained.
FILE_BYTES = 5_000_000_000
INDEX = "model.safetensors.index.json"
TRANSPOSED = (".experts.gate_up_proj", ".experts.down_proj")
LAYER = re.compile(r"^.*?\.\d+(?=\.)")


@dataclass(frozen=True)
class PlannedFile:
    """Names of the weights in a file."""

    names: tuple[str, ...]


def plan_files(sizes: Sequence[tuple[str, int]], limit: int = FILE_BYTES) -> list[PlannedFile]:
    """Divide weights into files, in order.

    A layer is never divided: names on disk may stand for several tensors of a layer together.

    Args:
        sizes: name and bytes of each weight.
        limit: largest size of a file in bytes.
    """
    files: list[list[str]] = []
    used = 0
    for names, size in _layers(sizes):
        if not files or used + size > limit:
            files.append([])
            used = 0
        files[-1] += names
        used += size
    return [PlannedFile(tuple(names)) for names in files]


def layer_of(name: str) -> str:
    """Return the name of the layer or block that a weight is part of, or its own name outside of all."""
    layer = LAYER.match(name)
    return layer[0] if layer else name


def _layers(sizes: Sequence[tuple[str, int]]) -> Iterator[tuple[list[str], int]]:
    """Yield the names of each layer, or of a single weight outside of all layers, and their bytes."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for name, size in sizes:
        groups.setdefault(layer_of(name), []).append((name, size))
    for group in groups.values():
        yield [name for name, _ in group], sum(size for _, size in group)


def save_gathered(model: Any, folder: Path, *, write: bool, limit: int = FILE_BYTES) -> None:
    """Gather the weights file by file and write them under the names that ``from_pretrained`` expects.

    Called on all processes. If a file cannot be written, the gathering goes on to its end, as the other
    processes wait for it, before the error is raised.

    Args:
        model: with sharded weights; adapters are merged.
        folder: created if absent.
        write: whether this process writes; the others take part in the gathering.
        limit: largest size of a file in bytes.

    Raises:
        OSError: a file cannot be written; only where ``write`` is set.
    """
    files = plan_files(named_sizes(model), limit)
    weights = named_weights(model)
    problem: Exception | None = None
    places: dict[str, str] = {}
    total = 0
    if write:
        folder.mkdir(parents=True, exist_ok=True)
    for number, planned in enumerate(files, 1):
        tensors: dict[str, Tensor] = {}
        for _ in planned.names:
            name, value = next(weights)
            if write and problem is None:
                tensors[name] = value.to("cpu", copy=True).contiguous()
            del value
        if not write or problem is not None:
            continue
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        try:
            stored = as_in_files(model, tensors)
            save_file(stored, folder / name, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            problem = error
            continue
        places |= dict.fromkeys(stored, name)
        total += sum(value.nbytes for value in stored.values())
    if problem is not None:
        raise problem
    if write:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _save_config(model, folder)


def as_in_files(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of whole layers with the names and layouts of the family's published files."""
    stored: dict[str, Tensor] = revert_weight_conversion(model, tensors)
    if not transposes_experts(model):
        return stored
    return {
        name: value.transpose(1, 2).contiguous() if _is_readable_transposed(name, value) else value
        for name, value in stored.items()
    }


def _is_readable_transposed(name: str, value: Tensor) -> bool:
    """Return whether these are experts, in which transformers can tell the two layouts apart."""
    return name.endswith(TRANSPOSED) and value.shape[1] != value.shape[2]


def transposes_experts(model: Any) -> bool:
    """Return whether transformers reads the published layout of experts, and writes another one.

    So does Qwen3-VL-MoE's, and vLLM reads the published one alone.
    """
    conversions = getattr(model, "_weight_conversions", None) or []
    steps = (step for conversion in conversions for step in getattr(conversion, "operations", ()))
    return model.config.model_type == "qwen3_vl_moe" and any(getattr(s, "check_dims", False) for s in steps)


def _save_config(model: Any, folder: Path) -> None:
    # Quantized weights are written unpacked.
    dtype = str(next(p.dtype for p in model.parameters() if p.is_floating_point())).removeprefix("torch.")
    parts = [getattr(model.config, name, None) for name in model.config.sub_configs]
    for config in (model.config, *(part for part in parts if part is not None)):
        config.dtype = dtype
    model.config.architectures = [type(model).__name__]
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
