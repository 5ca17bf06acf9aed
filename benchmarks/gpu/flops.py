"""Floating-point operations that an update needs; what checkpointing computes again is not counted.

A matrix product of n tokens with w weights takes 2·n·w operations. The backward pass takes as many for the
gradient of its input, and as many again for that of the weights if they are trained; adapters, norms and the
vision tower, whose features are computed once per iteration, are left out. Attention takes 4·D per head and
pair of tokens in the forward pass (scores and their sum of values) and twice that in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def layer_weights(text: Any) -> int:
    """Return the weights of all linear layers in the language model's layers."""
    heads, key_heads, head = text.num_attention_heads, text.num_key_value_heads, head_size(text)
    attention = text.hidden_size * head * (2 * heads + 2 * key_heads)
    return text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)


def head_size(text: Any) -> int:
    """Return D."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def update_flops(
    text: Any, prompts: Sequence[int], lengths: Sequence[Sequence[int]], *, trained: bool, shared: bool
) -> float:
    """Return the operations of a forward and a backward pass of the language model.

    Args:
        text: its config.
        prompts: (P,) tokens of each prompt.
        lengths: tokens of each prompt's completions.
        trained: whether its weights get a gradient, or adapters only.
        shared: whether each prompt is computed once for all its completions.
    """
    tokens = pairs = predicted = 0.0
    for prompt, group in zip(prompts, lengths, strict=True):
        times = 1 if shared else len(group)
        tokens += times * prompt + sum(length - 1 for length in group)
        pairs += times * triangle(prompt) + sum((n - 1) * prompt + triangle(n - 1) for n in group)
        predicted += sum(group)
    passes = 3 if trained else 2
    linear = 2 * (layer_weights(text) * tokens + text.hidden_size * text.vocab_size * predicted) * passes
    heads = text.num_hidden_layers * text.num_attention_heads * head_size(text)
    return linear + 12 * heads * pairs


def triangle(length: int) -> float:
    """Return the pairs of causal attention among this many tokens."""
    return length * (length + 1) / 2
