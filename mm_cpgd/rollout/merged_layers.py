"""Decoder layers of small models for one token at a time on a CPU: merged weights, fewer operations.

The results are those of the layers, rounding apart.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix.attention import AttentionBackend
from mm_cpgd.policy.shared_prefix.known_layers import TOLERANCE, are_small_and_known

# Of each language model, whether its layers agree with merged ones.
_agreeing: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


class MergedLayer:
    """A decoder layer in which products with the same input are one, and residual sums part of products.

    Rotary embedding multiplies by a cosine, and by a sine after an exchange of two halves of each head with
    one sign changed. The exchange is a permutation of the projection's rows, computed with it.

    Args:
        layer: of a model whose layers ``are_small_and_known``.
    """

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.number = attention.layer_idx
        self.size = attention.head_dim
        before, after = layer.input_layernorm, layer.post_attention_layernorm
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        self.heads = query.out_features // self.size
        self.rotated = query.out_features + key.out_features
        scale = attention.scaling
        rows = torch.cat([query.weight * scale, key.weight])
        rows = torch.cat([rows, _turned(rows, self.size), value.weight])
        self.projection = _transposed(rows * _norm_weight(before))
        self.bias: Tensor | None = None
        if query.bias is not None:
            values = torch.cat([query.bias * scale, key.bias])
            self.bias = torch.cat([values, _turned(values, self.size), value.bias])
        self.output, self.output_bias = _transposed(attention.o_proj.weight), attention.o_proj.bias
        self.width = mlp.gate_proj.out_features
        rows = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        self.opening = _transposed(rows * _norm_weight(after))
        self.closing = _transposed(mlp.down_proj.weight)
        self.act = mlp.act_fn
        # Of the sum of squares, not of their mean.
        self.epsilons = [
            torch.tensor(norm.weight.numel() * norm.variance_epsilon).sqrt() for norm in (before, after)
        ]

    def __call__(self, hidden: Tensor, cosines: Tensor, sines: Tensor, backend: AttentionBackend) -> Tensor:
        """Return the layer's output (N, C) for one token of N sequences.

        Args:
            hidden: (N, C).
            cosines: (N, 1, D) of the tokens' positions.
            sines: (N, 1, D).
            backend: attends to the tokens before.
        """
        projected = self.project(self.normed(hidden, 0))
        plain, turned, value = projected.split_with_sizes(
            [self.rotated, self.rotated, projected.shape[1] - 2 * self.rotated], 1
        )
        both = (plain.unflatten(1, (-1, self.size)) * cosines).addcmul_(
            turned.unflatten(1, (-1, self.size)), sines
        )
        query, key = both.tensor_split([self.heads], 1)
        value = value.unflatten(1, (-1, self.size))
        found = backend.attend(self.number, _heads_first(query), _heads_first(key), _heads_first(value), 1.0)
        return self.close(hidden, found.reshape(len(hidden), -1))

    def normed(self, hidden: Tensor, which: int) -> Tensor:
        """Return hidden (N, C) divided by each row's size: the first or second norm, without its weights."""
        size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / torch.hypot(size, self.epsilons[which])

    def project(self, normed: Tensor, out: Tensor | None = None) -> Tensor:
        """Return queries and keys, both once more exchanged, and values: (N, (2 · (H + K) + K) · D)."""
        if self.bias is None:
            return torch.mm(normed, self.projection, out=out)
        return torch.addmm(self.bias, normed, self.projection, out=out)

    def close(self, hidden: Tensor, found: Tensor) -> Tensor:
        """Return the layer's output from its input (N, C) and what attention has found (N, H · D)."""
        hidden = hidden.addmm(found, self.output)
        if self.output_bias is not None:
            hidden = hidden + self.output_bias
        gate, up = (self.normed(hidden, 1) @ self.opening).tensor_split([self.width], 1)
        return hidden.addmm(self.act(gate).mul_(up), self.closing)


@torch.no_grad()
def merged_layers(language: Any) -> list[MergedLayer] | None:
    """Return the layers with merged weights, copied now; None where they are unsuitable or no faster.

    Args:
        language: the language model, in evaluation mode.
    """
    if not are_small_and_known(language):
        return None
    layers = [MergedLayer(layer) for layer in language.layers]
    if language not in _agreeing:
        _agreeing[language] = all(map(_agree, layers, language.layers))
    return layers if _agreeing[language] else None


class _Mixed:
    """Stands for attention in the comparison: a sum in which query, key and value all count."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``."""
        others = (key + 2 * value).repeat_interleave(query.shape[1] // key.shape[1], 1)
        return (query * scale + others).transpose(1, 2)


def _agree(merged: MergedLayer, layer: Any) -> bool:
    """Compare a merged layer with the layer itself on three random tokens."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, layer.self_attn.q_proj.in_features, generator=generator)
    angles = torch.randn(3, merged.size // 2, generator=generator).repeat(1, 2)
    cosines, sines = angles.cos(), angles.sin()
    try:
        expected = layer(
            hidden.unsqueeze(0),
            attention_mask=None,
            position_embeddings=(cosines.unsqueeze(0), sines.unsqueeze(0)),
            attention_backend=_Mixed(),
        )
    except (TypeError, ValueError, IndexError, RuntimeError):
        return False
    expected = expected[0] if isinstance(expected, tuple) else expected
    found = merged(hidden, cosines.unsqueeze(1), sines.unsqueeze(1), _Mixed())
    return torch.allclose(found, expected[0], rtol=TOLERANCE, atol=TOLERANCE)


def _norm_weight(norm: Any) -> Tensor:
    """Return what the next matrix's columns are multiplied by; ``normed`` divides by the sum's root."""
    weight: Tensor = norm.weight
    return weight * weight.numel() ** 0.5


def _turned(rows: Tensor, size: int) -> Tensor:
    """Exchange the halves of each head of ``size`` rows and change the sign of the first."""
    first, second = rows.unflatten(0, (-1, 2, size // 2)).unbind(1)
    return torch.stack([-second, first], 1).view_as(rows)


def _transposed(weight: Tensor) -> Tensor:
    """Return the matrix by which rows are multiplied, contiguous: products with few rows are then faster."""
    return weight.t().contiguous()


def _heads_first(values: Tensor) -> Tensor:
    """Return (1, H, N, D) of (N, H, D)."""
    return values.transpose(0, 1).unsqueeze(0)
