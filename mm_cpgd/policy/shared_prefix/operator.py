"""Attention of a packed sequence as one operator of torch, opaque to compilers and to checkpointing.

``torch.compile`` keeps a layer in one graph around it, and selective checkpointing sees one result to keep.
The layout is an argument as a tensor of lengths: another one is no reason to compile again.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.blocks import Blocks
from mm_cpgd.policy.shared_prefix.choice import blocks_for
from mm_cpgd.policy.shared_prefix.packing import PackedLayout, packed_layout

# Layouts whose tensors stay on the device; a micro-batch has one, and all its layers use it.
KNOWN_LAYOUTS = 16


@dataclass(eq=False)  # hashed by identity: compilers hash it before it has its attributes
class OperatorAttention:
    """Causal attention within prefixes; a completion attends to its prefix and its own earlier tokens.

    Attributes:
        lengths: ``layout_lengths`` of the sequence.
        preferred: the ``policy.attention`` whose kernel is tried first.
    """

    lengths: Tensor
    preferred: str

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return (1, S, H, D) for query (1, H, S, D), key and value (1, K, S, D)."""
        query, key, value = (values.squeeze(0).transpose(0, 1) for values in (query, key, value))
        operator = torch.ops.mm_cpgd.packed_attention
        out: Tensor = operator(query, key, value, self.lengths, self.preferred, scale)[0]
        return out.unsqueeze(0)


def layout_lengths(layout: PackedLayout) -> Tensor:
    """Return P, the lengths of prefixes (P,), of groups (P,) and of completions (N,), as one tensor."""
    prefixes = layout.prefix_lengths
    return torch.tensor([len(prefixes), *prefixes, *layout.group_lengths, *layout.completion_lengths])


@functools.lru_cache(KNOWN_LAYOUTS)
def _layout(lengths: tuple[int, ...], device: torch.device) -> PackedLayout:
    prompts, *others = lengths
    values = torch.tensor(others, dtype=torch.long)
    prefixes, groups, completions = values.tensor_split([prompts, 2 * prompts])
    return packed_layout(prefixes, groups, completions).to(device)


def _blocks(query: Tensor, lengths: Tensor, preferred: str, scale: float) -> Blocks:
    attention = blocks_for(preferred, query.device.type, query.dtype, query.shape[-1])
    return attention.blocks(_layout(tuple(lengths.tolist()), query.device), scale)


@torch.library.custom_op(
    "mm_cpgd::packed_attention",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor lengths, str preferred, float scale)"
    " -> (Tensor, Tensor)",
)
def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, preferred: str, scale: float
) -> tuple[Tensor, Tensor]:
    """Return out (S, H, D) and lse (S, H) of query (S, H, D), key and value (S, K, D)."""
    out, lse = _blocks(query, lengths, preferred, scale).forward(query, key, value)
    return out.contiguous(), lse.contiguous()


@torch.library.custom_op(
    "mm_cpgd::packed_attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse, Tensor lengths,"
    " str preferred, float scale) -> (Tensor, Tensor, Tensor)",
)
def packed_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    lengths: Tensor,
    preferred: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value from that of ``out``."""
    blocks = _blocks(query, lengths, preferred, scale)
    one, two, three = blocks.backward(grad.contiguous(), query, key, value, out, lse)
    return one.contiguous(), two.contiguous(), three.contiguous()


@packed_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, preferred: str, scale: float
) -> tuple[Tensor, Tensor]:
    lse = query.new_empty(query.shape[:2], dtype=torch.promote_types(query.dtype, torch.float32))
    return query.new_empty(query.shape), lse


@packed_attention_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(values.new_empty(values.shape) for values in (query, key, value))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, lengths, ctx.preferred, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output, lengths)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    grads = torch.ops.mm_cpgd.packed_attention_backward(grad, *ctx.saved_tensors, ctx.preferred, ctx.scale)
    return (*grads, None, None, None)


packed_attention.register_autograd(_backward, setup_context=_setup)
