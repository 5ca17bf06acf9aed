"""The language model run on a stream in which the completions of a prompt share its prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.shared_prefix.attention import NAME, SharedPrefix, Sharing
from mm_cpgd.policy.shared_prefix.packing import Layout, Stream
from mm_cpgd.policy.vision import Sight


def prepare_model(model: Any) -> None:
    """Let the language model's layers attend as a ``Sharing`` says, where they are given one."""
    language_model(model).config._attn_implementation = NAME


def hidden_states(
    model: Any, sight: Sight, prompts: Sequence[EncodedPrompt], stream: Stream, sharing: Sharing | None = None
) -> Tensor:
    """Return the last hidden states (S, H) of a stream that begins with these prompts.

    Args:
        model: with its language head.
        sight: of the same model.
        prompts: each once, in the order of the stream.
        stream: what is read.
        sharing: who attends to what; by default each completion to its prefix and itself.
    """
    language = language_model(model)
    device = language.embed_tokens.weight.device
    layout = _on(stream.layout, device)
    input_ids = stream.input_ids.to(device, non_blocking=True)
    embedded = language.embed_tokens(input_ids.unsqueeze(0))
    features = sight.of(prompts)
    where = None
    if features is not None:
        where = (stream.input_ids[: layout.shared] == model.config.image_token_id).nonzero().squeeze(1)
        where = where.to(device, non_blocking=True)
        embedded = embedded.index_copy(1, where, features[:1].to(embedded.dtype))
    return run_layers(
        language,
        embedded,
        turns(language, embedded, stream.positions.to(device, non_blocking=True).unsqueeze(1)),
        sharing or SharedPrefix(layout),
        (where, features[1:]) if features is not None and where is not None else None,
    ).squeeze(0)


def turns(language: Any, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (…, B, S, D) of the rotary embedding at positions (axes, B, S)."""
    found: tuple[Tensor, Tensor] = language.rotary_emb(
        like, positions if len(positions) > 1 else positions[0]
    )
    return found


def run_layers(
    language: Any,
    hidden: Tensor,
    turned: tuple[Tensor, Tensor],
    sharing: Sharing,
    added: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Run the layers and the last norm on embedded tokens (B, S, H).

    Args:
        language: the language model.
        hidden: embeddings.
        turned: what ``turns`` gives for their positions.
        sharing: who attends to what.
        added: places (V,) in the stream, and (K, V, H) to be added there behind each of the first K layers.
    """
    for number, layer in enumerate(language.layers):
        hidden = layer(hidden, attention_mask=None, position_embeddings=turned, sharing=sharing)
        if isinstance(hidden, tuple):
            hidden = hidden[0]
        if added is not None and number < len(added[1]):
            hidden = hidden.index_add(1, added[0], added[1][number : number + 1].to(hidden.dtype))
    normed: Tensor = language.norm(hidden)
    return normed


def _on(layout: Layout, device: torch.device) -> Layout:
    if layout.pad is None or layout.unpad is None:
        return layout
    return replace(layout, pad=layout.pad.to(device), unpad=layout.unpad.to(device))
