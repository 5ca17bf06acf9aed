"""Shared-prefix attention: each completion attends to its prompt's prefix and to its own earlier tokens.

It plugs into the language model's layers through transformers' attention interface. All other operations of a
layer treat tokens independently, so one packed sequence without padding holds all prompts and completions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mm_cpgd.policy.shared_prefix.blocks import BlockAttention, Blocks
from mm_cpgd.policy.shared_prefix.choice import PREFERRED, attention_for
from mm_cpgd.policy.shared_prefix.operator import OperatorAttention
from mm_cpgd.policy.shared_prefix.packing import PackedLayout

# By ``policy.attention``, the name in a language model's config. Without an ``attention_backend`` it is
# transformers' sdpa; none contains "flash", which transformers would take for a kernel of its own.
ATTENTION_NAMES = {name: f"mm_cpgd_{name.replace('flash_attention_', 'fa')}" for name in PREFERRED}


class AttentionBackend(Protocol):
    """Attention over a packed sequence of S tokens."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return (1, S, H, D) for query (1, H, S, D), key and value (1, K, S, D), after rotary embedding."""
        ...


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    attention_backend: AttentionBackend | OperatorAttention | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention by the backend, or without one by transformers' sdpa."""
    if attention_backend is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    query, key, value = _cast(query, key, value)
    if isinstance(attention_backend, OperatorAttention):
        # Without the layer's number, for each value of which a layer would be compiled again.
        return attention_backend(query, key, value, options["scaling"]), None
    return attention_backend.attend(module.layer_idx, query, key, value, options["scaling"]), None


for _name in ATTENTION_NAMES.values():
    AttentionInterface.register(_name, attention)
    AttentionMaskInterface.register(_name, sdpa_mask)


def preferred_attention(language: Any) -> str:
    """Return the ``policy.attention`` of a language model whose layers use an ``AttentionBackend``."""
    names = {own: name for name, own in ATTENTION_NAMES.items()}
    return names.get(language.config._attn_implementation, "sdpa")


def _cast(*values: Tensor) -> list[Tensor]:
    """Cast all to one number format: that of autocast, as torch's own attention does."""
    device = values[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values[0].dtype
    return [value.to(dtype) for value in values]


@dataclass
class SharedPrefixAttention:
    """Causal attention within prefixes; a completion attends to its prefix and its own earlier tokens.

    Attributes:
        layout: arrangement of the sequence.
        preferred: the ``policy.attention`` whose kernel is tried first.
    """

    layout: PackedLayout
    preferred: str = "sdpa"

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``."""
        attend = attention_for(self.preferred, query.device.type, query.dtype, query.shape[-1])
        query, key, value = (values.squeeze(0).transpose(0, 1) for values in (query, key, value))
        return attend(query, key, value, self.layout, scale).unsqueeze(0)

    def blocks(self, like: Tensor, head: int, scale: float) -> Blocks | None:
        """Return the same as blocks, for heads of this size; None where it is not by blocks."""
        found = attention_for(self.preferred, like.device.type, like.dtype, head)
        return found.blocks(self.layout, scale) if isinstance(found, BlockAttention) else None
