"""Storage of AdamW's moments: as float32, or in 8 bits with a scale for each block of values.

8 bits: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv 2110.02861, by bitsandbytes.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

EIGHT_BIT_PACKAGE = "bitsandbytes"
# Values that share a scale, and the smallest tensor that is stored in 8 bits: bitsandbytes' own choices.
BLOCK = 256
SMALLEST = 4096
SCALE = "_scale"
FIRST, SECOND = "exp_avg", "exp_avg_sq"
Empty = Callable[[tuple[int, ...], torch.dtype], Tensor]


def eight_bit_available() -> bool:
    """Return whether moments can be stored in 8 bits."""
    return importlib.util.find_spec(EIGHT_BIT_PACKAGE) is not None


def new_moments(parameter: Tensor, empty: Empty, *, eight_bit: bool) -> dict[str, Tensor]:
    """Return moments of zeros, by their names in torch's AdamW.

    Args:
        parameter: what they belong to.
        empty: allocates a tensor of a shape and number format where moments are kept.
        eight_bit: codes of uint8 in the parameter's shape, and scales (blocks,), unless it is small.
    """
    shape, found = tuple(parameter.shape), {}
    for name in (FIRST, SECOND):
        if eight_bit and parameter.numel() >= SMALLEST:
            blocks = -(-parameter.numel() // BLOCK)
            # Without a scale every code is 0.
            found[name] = empty(shape, torch.uint8).zero_()
            found[name + SCALE] = empty((blocks,), torch.float32).zero_()
        else:
            found[name] = empty(shape, torch.float32).zero_()
    return found


def read(moments: dict[str, Tensor], name: str, part: slice) -> Tensor:
    """Return a part of a moment's values, flat and in float32; the same memory if they are stored so.

    Args:
        moments: on one device.
        name: ``FIRST`` or ``SECOND``.
        part: of the flat values; starts at the start of a block.
    """
    values = moments[name].view(-1)[part]
    if values.dtype != torch.uint8:
        return values.float()
    levels, scales = _levels(name == FIRST, values.device), moments[name + SCALE][_blocks(part)]
    found: Tensor = _functions().dequantize_blockwise(values, absmax=scales, code=levels, blocksize=BLOCK)
    if name == SECOND:
        # Second moments that were stored as 0 would let the next step divide by almost 0.
        found = found.maximum((scales * _smallest()).repeat_interleave(BLOCK)[: len(found)])
    return found


def write(moments: dict[str, Tensor], name: str, part: slice, values: Tensor) -> None:
    """Store what ``read`` returned after it has changed."""
    stored = moments[name].view(-1)[part]
    if stored.dtype != torch.uint8:
        stored.copy_(values)
        return
    levels = _levels(name == FIRST, values.device)
    codes, state = _functions().quantize_blockwise(values, code=levels, blocksize=BLOCK)
    stored.copy_(codes)
    moments[name + SCALE][_blocks(part)] = state.absmax


def _blocks(part: slice) -> slice:
    return slice(part.start // BLOCK, -(-part.stop // BLOCK))


def _functions() -> Any:
    return importlib.import_module(f"{EIGHT_BIT_PACKAGE}.functional")


@functools.cache
def _levels(signed: bool, device: torch.device) -> Tensor:
    """Return the 256 values that a code stands for, as shares of the scale."""
    levels: Tensor = _functions().create_dynamic_map(signed=signed).to(device)
    return levels


@functools.cache
def _smallest() -> float:
    """Return the smallest second moment above 0, as a share of the scale."""
    levels = _levels(False, torch.device("cpu"))
    return float(levels[levels > 0].min())
