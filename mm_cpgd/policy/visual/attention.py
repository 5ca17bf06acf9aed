"""Attention of vision towers within images and windows: one call for all of them, in place of one for each.

transformers' ``sdpa`` calls the kernel once for every window: 450 times in each layer for eight images of
1,000 visual tokens. Its path for FlashAttention passes the ends of the windows instead, to a function that
is registered here.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mm_cpgd.policy.families import vision_modules
from mm_cpgd.policy.shared_prefix.choice import checked

# transformers passes the ends of windows to attention functions whose name contains "flash".
NAME = "mm_cpgd_flash_segments"

aten: Any = torch.ops.aten


def attend_within_segments(model: Any) -> None:
    """Let the vision tower compute the attention of all images and windows at once, if it is of the kind.

    Towers whose attention takes ``cu_seqlens`` (Qwen-VL, GLM-4V and their kin) and that would use ``sdpa``.
    """
    for tower in vision_modules(model):
        for module in tower.modules():
            config: Any = getattr(module, "config", None)
            if _takes_segments(module) and getattr(config, "_attn_implementation", None) == "sdpa":
                config._attn_implementation = NAME


def _takes_segments(module: nn.Module) -> bool:
    return hasattr(module, "scaling") and "cu_seqlens" in inspect.signature(module.forward).parameters


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    scaling: float,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return (1, S, H, D) for (1, H, S, D): every segment attends to itself.

    Args:
        module: the layer.
        query: after rotary embedding, as key and value.
        key: see query.
        value: see query.
        attention_mask: of calls without segments.
        cu_seq_lens_q: (B + 1,) 0 and the ends of the segments; without it, transformers' ``sdpa`` is called.
        scaling: factor of the scores.
        options: of transformers' kernels.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    segments = _segments(cu_seq_lens_q)
    if query.is_cuda and checked("torch_varlen", "cuda", query.dtype, query.shape[-1]) is not None:
        return _by_kernel(query, key, value, segments, scaling), None
    return _by_length(query, key, value, segments, scaling), None


AttentionInterface.register(NAME, attention)


@dataclass(frozen=True)
class Segments:
    """Segments of a sequence of S tokens.

    Attributes:
        ends: (B + 1,) int32 on the device, 0 and the ends.
        longest: tokens of the longest one.
        of_length: number of tokens → (b, length) places of the b segments with so many; on the device.
    """

    ends: Tensor
    longest: int
    of_length: dict[int, Tensor]


_known = WeakIdKeyDictionary()


def _segments(ends: Tensor) -> Segments:
    """Return what the ends say; all layers of a forward pass have the same tensor, which is read once."""
    found: Segments | None = _known.get(ends)
    if found is None:
        found = _known[ends] = _read(ends)
    return found


def _read(ends: Tensor) -> Segments:
    marks = ends.cpu().long()
    starts, lengths = marks[:-1], marks.diff()
    places = {
        int(length): (starts[lengths == length, None] + torch.arange(length)).to(ends.device)
        for length in lengths.unique()
        if length
    }
    return Segments(ends.int(), int(lengths.max()), places)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Attend by torch's FlashAttention for any lengths, which autograd differentiates."""
    rows = [values[0].transpose(0, 1).contiguous() for values in (query, key, value)]
    spans = (segments.ends, segments.ends, segments.longest, segments.longest)
    out: Tensor = aten._flash_attention_forward(*rows, *spans, 0.0, False, False, scale=scale)[0]
    return out.unsqueeze(0)


def _by_length(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Attend by torch's ``scaled_dot_product_attention``, all segments of a length in one call."""
    outs, places = [], []
    for own in segments.of_length.values():
        # (b, H, length, D)
        q, k, v = (values[0][:, own].transpose(0, 1) for values in (query, key, value))
        outs.append(scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1))
        places.append(own.flatten())
    order = torch.cat(places)
    rows = torch.cat(outs)  # (S, H, D)
    return torch.empty_like(rows).index_copy(0, order, rows).unsqueeze(0)
