"""Blocks by a kernel for any lengths equal attention under the mask written out.

FlashAttention runs on no CPU: plain products take its place behind the same interface, and its packages are
replaced by records of what they are called with.
"""

from __future__ import annotations

import inspect
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.blocks import BlockAttention
from mm_cpgd.policy.shared_prefix.kernels import PlainKernel
from mm_cpgd.policy.shared_prefix.varlen import (
    FlashAttention2Kernel,
    FlashAttention3Kernel,
    Spans,
    VarlenBlocks,
)
from tests.fakes.packed_sequences import SHAPES, Shape, assert_is_masked_attention


class PlainSpans:
    """Plain products for each pair of spans, with FlashAttention's shapes."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        out, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
        for rows, columns in pairs(spans):
            part = [query[rows], key[columns], value[columns]]
            one, one_lse = PlainKernel().forward(*batches(part), scale=scale, causal=spans.causal)
            out[rows], lse[:, rows] = one[0].transpose(0, 1), one_lse[0]
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
        assert lse.is_contiguous()
        grads = tuple(torch.zeros_like(values) for values in (query, key, value))
        for rows, columns in pairs(spans):
            part = [grad[rows], query[rows], key[columns], value[columns], out[rows]]
            found = PlainKernel().backward(
                *batches(part), lse[None, :, rows], scale=scale, causal=spans.causal
            )
            for whole, place, one in zip(grads, (rows, columns, columns), found, strict=True):
                whole[place] = one[0].transpose(0, 1)
        return grads  # type: ignore[return-value]


def batches(values: list[Tensor]) -> list[Tensor]:
    return [one.transpose(0, 1).unsqueeze(0) for one in values]


def pairs(spans: Spans) -> list[tuple[slice, slice]]:
    """Return the spans as slices, and check what kernels rely on."""
    ends = (spans.query_ends, spans.key_ends)
    assert all(one.dtype == torch.int32 for one in ends)
    queries, keys = (
        [slice(*pair) for pair in zip(one.tolist(), one.tolist()[1:], strict=False)] for one in ends
    )
    assert max(one.stop - one.start for one in queries) == spans.longest_query
    assert max(one.stop - one.start for one in keys) == spans.longest_key
    return list(zip(queries, keys, strict=True))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_blocks_of_any_lengths_are_attention_under_the_mask_written_out(shape: Shape) -> None:
    assert_is_masked_attention(BlockAttention(partial(VarlenBlocks, PlainSpans())), shape)


# Signatures of flash-attn 2.8 and of its Hopper package, in their order.
def varlen_forward(
    q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float, softmax_scale: float, causal: bool, window_size_left: int = -1,
    window_size_right: int = -1, softcap: float = 0.0, alibi_slopes: Any = None,
    return_softmax: bool = False, block_table: Any = None, leftpad_k: Any = None, seqused_k: Any = None,
) -> Any: ...  # fmt: skip


def varlen_backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, softmax_lse: Any, dq: Any, dk: Any, dv: Any,
    cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int, max_seqlen_k: int, dropout_p: float,
    softmax_scale: float, causal: bool, window_size_left: int, window_size_right: int, softcap: float,
    alibi_slopes: Any, deterministic: bool, rng_state: Any = None,
) -> Any: ...  # fmt: skip


def hopper_forward(
    q: Any, k: Any, v: Any, k_new: Any = None, v_new: Any = None, qv: Any = None, out_: Any = None,
    cu_seqlens_q: Any = None, cu_seqlens_k: Any = None, cu_seqlens_k_new: Any = None, seqused_q: Any = None,
    seqused_k: Any = None, max_seqlen_q: Any = None, max_seqlen_k: Any = None, page_table: Any = None,
    softmax_scale: Any = None, causal: bool = False,
) -> Any: ...  # fmt: skip


def hopper_backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, softmax_lse: Any, cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None, sequed_q: Any = None, sequed_k: Any = None, max_seqlen_q: Any = None,
    max_seqlen_k: Any = None, dq: Any = None, dk: Any = None, dv: Any = None, softmax_scale: Any = None,
    is_causal: bool = False,
) -> Any: ...  # fmt: skip


PACKAGES = {
    FlashAttention2Kernel: (
        "flash_attn.flash_attn_interface",
        {
            "_flash_attn_varlen_forward": varlen_forward,
            "_flash_attn_varlen_backward": varlen_backward,
        },
    ),
    FlashAttention3Kernel: (
        "flash_attn_interface",
        {"_flash_attn_forward": hopper_forward, "_flash_attn_backward": hopper_backward},
    ),
}


def package(functions: dict[str, Any]) -> SimpleNamespace:
    """Return a package whose functions check their arguments and compute with plain products."""
    backend = PlainSpans()

    def call(signature: inspect.Signature, *values: Any, **named: Any) -> Any:
        given = signature.bind(*values, **named).arguments
        causal = given.get("causal", given.get("is_causal"))
        names = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
        spans = Spans(*(given[name] for name in names), causal)
        inputs, scale = [given[name] for name in "qkv"], given["softmax_scale"]
        if "dout" not in given:
            return *backend.forward(*inputs, spans, scale=scale), None
        found = backend.backward(
            given["dout"], *inputs, given["out"], given["softmax_lse"], spans, scale=scale
        )
        for name, one in zip(("dq", "dk", "dv"), found, strict=True):
            given[name].copy_(one)
        return None

    named = {name: partial(call, inspect.signature(one)) for name, one in functions.items()}
    return SimpleNamespace(**named)


@pytest.mark.parametrize("kernel", PACKAGES)
def test_the_packages_are_called_by_their_interface(
    kernel: type[FlashAttention2Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, functions = PACKAGES[kernel]
    monkeypatch.setitem(sys.modules, name.split(".")[0], SimpleNamespace())
    monkeypatch.setitem(sys.modules, name, package(functions))
    attention = BlockAttention(partial(VarlenBlocks, kernel()))
    assert_is_masked_attention(attention, SHAPES["all unequal"])
