"""FlexAttention of a packed sequence: one compiled kernel that skips the blocks that the mask forbids.

On a CPU nothing is compiled, all scores are in memory, and torch computes no gradients.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from mm_cpgd.policy.shared_prefix.packing import PackedLayout


def flex(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    """Return (S, H, D) for query (S, H, D), key and value (S, K, D)."""
    heads_first = (values.transpose(0, 1).unsqueeze(0) for values in (query, key, value))
    kernel = _kernel(compiled=query.is_cuda)
    mask = block_mask(layout, query.device)
    out: Tensor = kernel(*heads_first, block_mask=mask, scale=scale, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


@functools.cache
def _kernel(*, compiled: bool) -> Any:
    # Dynamic: every micro-batch has another length, and would be compiled again.
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def block_mask(layout: PackedLayout, device: torch.device) -> BlockMask:
    """Return the mask of the sequence; all layers of a forward pass share it.

    A completion's token attends to its prompt's prefix and to the tokens of its completion up to itself.
    """
    known = layout.stored.get(("mask", device))
    if known is None:
        known = layout.stored[("mask", device)] = _block_mask(layout, device)
    return known


def _block_mask(layout: PackedLayout, device: torch.device) -> BlockMask:
    prompt, sequence = (values.to(device) for values in layout.owners())

    def allowed(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        own = (sequence[row] == sequence[column]) & (row >= column)
        return own | ((prompt[row] == prompt[column]) & (sequence[column] < 0) & (sequence[row] >= 0))

    length = len(prompt)
    # Compiled, the mask of single tokens, (S, S), is never in memory.
    return create_block_mask(
        allowed, None, None, length, length, device=device, _compile=device.type == "cuda"
    )
