"""Attention kernels for sequences of any lengths one after the other, without padding (FlashAttention).

Their interfaces are not promised by their packages; ``choice`` compares each with plain products on the real
device before its first use. FlashAttention-2: arXiv 2307.08691; FlashAttention-3: arXiv 2407.08608.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.kernels import merge
from mm_cpgd.policy.shared_prefix.packing import PackedLayout

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Spans:
    """B pairs of a span of queries and a span of keys; each query attends to the keys of its pair.

    Attributes:
        query_ends: (B + 1,) int32 on the device, 0 and the ends of the spans of queries.
        key_ends: (B + 1,) int32, likewise of keys.
        longest_query: tokens of the longest span of queries.
        longest_key: tokens of the longest span of keys.
        causal: whether the i-th query attends to the first i keys only; spans are then equally long.
    """

    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int
    causal: bool

    @property
    def arguments(self) -> tuple[Tensor, Tensor, int, int]:
        """Ends and longest spans, in the order in which all kernels take them."""
        return self.query_ends, self.key_ends, self.longest_query, self.longest_key


class VarlenKernel(Protocol):
    """Softmax attention within spans; query, out (Tq, H, D); key, value (Tk, K, D); lse (H, Tq) float32."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return out and lse."""
        ...

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        spans: Spans,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value; out and lse may be over a larger set of keys."""
        ...


class TorchVarlenKernel:
    """FlashAttention-2 as torch contains it: CUDA, float16 and bfloat16."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        out, lse, *_ = aten._flash_attention_forward(
            query, key, value, *spans.arguments, 0.0, spans.causal, False, scale=scale
        )
        return out, lse

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        spans: Spans,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``VarlenKernel``."""
        # Random state of a dropout, which is not used.
        state = torch.zeros(2, dtype=torch.uint64, device=query.device)
        none = torch.empty(0, device=query.device)
        grads: tuple[Tensor, Tensor, Tensor] = aten._flash_attention_backward(
            grad, query, key, value, out, lse, *spans.arguments, 0.0, spans.causal, state, none, scale=scale
        )
        return grads


class FlashAttention2Kernel:
    """FlashAttention-2 of the package ``flash_attn``, 2.7 or later."""

    def __init__(self) -> None:
        self.package: Any = importlib.import_module("flash_attn.flash_attn_interface")

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        out, lse, *_ = self.package._flash_attn_varlen_forward(
            query, key, value, *spans.arguments, dropout_p=0.0, softmax_scale=scale, causal=spans.causal
        )
        return out, lse

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        spans: Spans,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``VarlenKernel``."""
        grads = _zeros(query, key, value)
        self.package._flash_attn_varlen_backward(
            grad, query, key, value, out, lse, *grads, *spans.arguments,
            dropout_p=0.0, softmax_scale=scale, causal=spans.causal, window_size_left=-1,
            window_size_right=-1, softcap=0.0, alibi_slopes=None, deterministic=False,
        )  # fmt: skip
        return grads


class FlashAttention3Kernel:
    """FlashAttention-3 of the package ``flash_attn_interface``, for Hopper."""

    def __init__(self) -> None:
        self.package: Any = importlib.import_module("flash_attn_interface")

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        out, lse, *_ = self.package._flash_attn_forward(
            query, key, value, **_named(spans), softmax_scale=scale, causal=spans.causal
        )
        return out, lse

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        spans: Spans,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``VarlenKernel``."""
        of_query, of_key, of_value = grads = _zeros(query, key, value)
        self.package._flash_attn_backward(
            grad, query, key, value, out, lse, **_named(spans), dq=of_query, dk=of_key, dv=of_value,
            softmax_scale=scale, is_causal=spans.causal,
        )  # fmt: skip
        return grads


def _named(spans: Spans) -> dict[str, Any]:
    names = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
    return dict(zip(names, spans.arguments, strict=True))


def _zeros(*values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of zeros, contiguous: keys that no query attends to may not be written."""
    one, two, three = (torch.zeros(value.shape, dtype=value.dtype, device=value.device) for value in values)
    return one, two, three


@dataclass(frozen=True)
class VarlenBlocks:
    """Blocks by a kernel for any lengths: three calls, whatever the lengths of prompts and completions."""

    kernel: VarlenKernel
    layout: PackedLayout
    scale: float

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Blocks``."""
        prefixes, cross, own = self._spans(query.device)
        start = self.layout.prefix_tokens
        before, after = slice(start), slice(start, None)
        out, lse = self._forward(query[before], key[before], value[before], prefixes)
        if not self.layout.width:
            return out, lse.contiguous()
        first = self._forward(query[after], key[before], value[before], cross)
        second = self._forward(query[after], key[after], value[after], own)
        merged, merged_lse = merge(*first, *second)
        return torch.cat([out, merged]), torch.cat([lse, merged_lse])

    def backward(
        self, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, ...]:
        """See ``Blocks``."""
        prefixes, cross, own = self._spans(query.device)
        start = self.layout.prefix_tokens
        before, after = slice(start), slice(start, None)
        queries, keys = (grad, query, out, lse), (key, value)
        of_prefix = self._backward(queries, before, keys, before, prefixes)
        if not self.layout.width:
            return of_prefix
        of_cross = self._backward(queries, after, keys, before, cross)
        of_own = self._backward(queries, after, keys, after, own)
        return (
            torch.cat([of_prefix[0], of_cross[0] + of_own[0]]),
            torch.cat([of_prefix[1] + of_cross[1], of_own[1]]),
            torch.cat([of_prefix[2] + of_cross[2], of_own[2]]),
        )

    def _forward(self, query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> tuple[Tensor, Tensor]:
        """Return out (T, H, D) and lse (T, H)."""
        out, lse = self.kernel.forward(query, key, value, spans, scale=self.scale)
        return out, lse.transpose(0, 1)

    def _backward(
        self, queries: tuple[Tensor, ...], rows: slice, keys: tuple[Tensor, ...], columns: slice, spans: Spans
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad, query, out, lse = (values[rows] for values in queries)
        key, value = (values[columns] for values in keys)
        return self.kernel.backward(
            grad, query, key, value, out, lse.transpose(0, 1).contiguous(), spans, scale=self.scale
        )

    def _spans(self, device: torch.device) -> tuple[Spans, Spans, Spans]:
        """Return the spans of prefixes, of completions and their prefixes, and of completions."""
        layout, ends = self.layout, self.layout.ends(device)
        prefix, group = max(layout.prefix_lengths), max(layout.group_lengths)
        return (
            Spans(ends.prefixes, ends.prefixes, prefix, prefix, causal=True),
            Spans(ends.groups, ends.prefixes, group, prefix, causal=False),
            Spans(ends.completions, ends.completions, layout.width, layout.width, causal=True),
        )
