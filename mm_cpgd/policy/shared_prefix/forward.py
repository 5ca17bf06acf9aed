"""Forward pass of the language model over a packed sequence with shared prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.checkpointing import keeps_attention
from mm_cpgd.policy.families import language_model, vision_token_ids
from mm_cpgd.policy.shared_prefix.attention import (
    ATTENTION_NAMES,
    AttentionBackend,
    SharedPrefixAttention,
    preferred_attention,
)
from mm_cpgd.policy.shared_prefix.choice import wants_flex
from mm_cpgd.policy.shared_prefix.compiled import compiles, packed_tokens
from mm_cpgd.policy.shared_prefix.fused_layers import fused_layers
from mm_cpgd.policy.shared_prefix.operator import OperatorAttention, layout_lengths
from mm_cpgd.policy.shared_prefix.packing import PackedBatch, PackedLayout
from mm_cpgd.policy.vision import VisionFeatureCache


def enable_shared_prefix(model: Any) -> None:
    """Make the language model's layers use an ``AttentionBackend`` if they are given one."""
    config = language_model(model).config
    name = config._attn_implementation
    config._attn_implementation = ATTENTION_NAMES.get(name, name)


def hidden_states(
    model: Any,
    vision_cache: VisionFeatureCache,
    prompts: Sequence[EncodedPrompt],
    batch: PackedBatch,
    backend: AttentionBackend | None = None,
) -> Tensor:
    """Compute the last hidden states (S, H) of a packed sequence.

    Args:
        model: with its language head.
        vision_cache: the same model's cache of vision features.
        prompts: the distinct prompts, in packed order.
        batch: the sequence.
        backend: attention of the layers; by default each completion attends to its prefix and to itself.
    """
    language = language_model(model)
    device = language.embed_tokens.weight.device
    layout = batch.layout.to(device)
    input_ids = batch.input_ids.to(device, non_blocking=True)
    embedded = language.embed_tokens(input_ids.unsqueeze(0))
    features = vision_cache.features([*prompts, *batch.suffixes])
    vision_tokens = None
    if features is None and vision_cache.runs_always:
        # Without influence, but with the same gathering of weights as on processes that have images.
        embedded = embedded + 0.0 * vision_cache.blank_features().sum()
    if features is not None:
        replaced = torch.tensor(vision_token_ids(model.config))
        found = torch.isin(batch.input_ids[: layout.prefix_tokens], replaced)
        if batch.image_tokens is not None:
            found = torch.cat([found, batch.image_tokens])
        vision_tokens = found.nonzero().squeeze(1).to(device, non_blocking=True)
        embedded = embedded.index_copy(1, vision_tokens, features[:1].to(embedded.dtype))
    cos_sin = rotary_cos_sin(language, embedded, batch.positions.to(device, non_blocking=True).unsqueeze(1))
    options = layer_options(language, layout, cos_sin, backend)
    deepstack = None if features is None or vision_tokens is None else (vision_tokens, features[1:])
    return _run_layers(language, embedded, options, deepstack).squeeze(0)


def appended_states(
    model: Any,
    ids: Tensor,
    positions: Tensor,
    features: Tensor | None,
    vision_tokens: Tensor,
    backend: AttentionBackend,
) -> Tensor:
    """Compute the last hidden states (S, H) of tokens that are appended to sequences with a cache.

    Args:
        model: with its language head.
        ids: (S,), those of one sequence after those of another.
        positions: (axes, S).
        features: (1 + K, V, H) of their images, as from ``VisionFeatureCache.features``; None without any.
        vision_tokens: (V,) indices of the tokens that stand for images.
        backend: attention to the cache and among the tokens of one sequence.
    """
    language = language_model(model)
    device = language.embed_tokens.weight.device
    embedded = language.embed_tokens(ids.to(device).unsqueeze(0))
    deepstack = None
    if features is not None:
        index = vision_tokens.to(device)
        embedded = embedded.index_copy(1, index, features[:1].to(embedded.dtype))
        deepstack = (index, features[1:])
    cos_sin = rotary_cos_sin(language, embedded, positions.to(device).unsqueeze(1))
    options = {"attention_mask": None, "position_embeddings": cos_sin, "attention_backend": backend}
    return _run_layers(language, embedded, options, deepstack).squeeze(0)


def layer_options(
    language: Any, layout: PackedLayout, cos_sin: tuple[Tensor, Tensor], backend: AttentionBackend | None
) -> dict[str, Any]:
    """Return the options of the layers' forward pass: compiled in the update if they can be, or ``fused``."""
    preferred = preferred_attention(language)
    if backend is None and compiles(language, layout.tokens, preferred):
        return {"packed": packed_tokens(layout, cos_sin, preferred)}
    attention: Any = backend or SharedPrefixAttention(layout, preferred)
    if backend is None and keeps_attention(language) and not wants_flex(preferred):
        attention = OperatorAttention(layout_lengths(layout), preferred)
    elif isinstance(attention, SharedPrefixAttention):
        fused = fused_layers(language, attention, cos_sin)
        if fused is not None:
            return {"fused": fused}
    return {"position_embeddings": cos_sin, "attention_mask": None, "attention_backend": attention}


def rotary_cos_sin(language: Any, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (…, B, S, D) of the rotary embedding at positions (axes, B, S)."""
    cos_sin: tuple[Tensor, Tensor] = language.rotary_emb(
        like, positions if len(positions) > 1 else positions[0]
    )
    return cos_sin


def run_layers(
    language: Any,
    hidden: Tensor,
    cos_sin: tuple[Tensor, Tensor],
    backend: AttentionBackend,
) -> Tensor:
    """Run the layers and the final norm on embedded tokens (B, S, H).

    Args:
        language: the language model.
        hidden: embeddings.
        cos_sin: ``rotary_cos_sin`` of their positions.
        backend: attention of the layers.
    """
    options = {"attention_mask": None, "position_embeddings": cos_sin, "attention_backend": backend}
    return _run_layers(language, hidden, options)


def _run_layers(
    language: Any,
    hidden: Tensor,
    options: Mapping[str, Any],
    deepstack: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Run the layers, with these options or what they have as ``fused``, and the final norm.

    ``deepstack`` is indices (V,) in the sequence, and (K, V, H) to be added there after each of the first K
    layers.
    """
    fused = options.get("fused")
    for number, layer in enumerate(language.layers):
        hidden = fused(layer, hidden) if fused else layer(hidden, **options)
        if isinstance(hidden, tuple):
            hidden = hidden[0]
        if deepstack is not None and number < len(deepstack[1]):
            hidden = hidden.index_add(1, deepstack[0], deepstack[1][number : number + 1].to(hidden.dtype))
    normed: Tensor = language.norm(hidden)
    return normed
