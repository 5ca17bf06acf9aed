"""Decoder layers of small models on a CPU as one differentiable operation each, for a packed sequence.

Products with the same input are one, elementwise operations write in place, and the backward pass is written
out: it computes cheap values again instead of reading them from memory. Values and gradients are those of the
layer, rounding apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import silu

from mm_cpgd.policy.checkpointing import keeps_attention
from mm_cpgd.policy.shared_prefix.attention import SharedPrefixAttention
from mm_cpgd.policy.shared_prefix.blocks import Blocks
from mm_cpgd.policy.shared_prefix.known_layers import TOLERANCE, are_small_and_known

aten: Any = torch.ops.aten

# Of each language model, whether its layers agree with these operations.
_agreeing: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class FusedLayers:
    """Runs a layer on a packed sequence.

    Attributes:
        cosines: (S, D) of the rotary embedding at the tokens' positions.
        sines: (S, D).
        blocks: of the layers' attention.
    """

    cosines: Tensor
    sines: Tensor
    blocks: Blocks

    def __call__(self, layer: Any, hidden: Tensor) -> Tensor:
        """Return the layer's output (1, S, C) for its input (1, S, C)."""
        found: Tensor = _LayerFunction.apply(
            hidden[0], self.cosines, self.sines, self.blocks, _shape(layer), *_weights(layer)
        )
        return found.unsqueeze(0)


@torch.no_grad()
def fused_layers(
    language: Any, attention: SharedPrefixAttention, cos_sin: tuple[Tensor, Tensor]
) -> FusedLayers | None:
    """Return what runs the layers of a language model on a packed sequence; None where they are unsuitable.

    Args:
        language: the language model.
        attention: of the sequence.
        cos_sin: ``rotary_cos_sin`` of its tokens.
    """
    # Older versions rotate by sections within the layers.
    if cos_sin[0].dim() != 3 or keeps_attention(language) or not are_small_and_known(language):
        return None
    layer = language.layers[0]
    if any(one.self_attn.o_proj.bias is not None for one in language.layers):
        return None
    blocks = attention.blocks(cos_sin[0], layer.self_attn.head_dim, layer.self_attn.scaling)
    if blocks is None:
        return None
    fused = FusedLayers(cos_sin[0][0], cos_sin[1][0], blocks)
    if language not in _agreeing:
        _agreeing[language] = _agree(language, attention, cos_sin)
    return fused if _agreeing[language] else None


def _agree(language: Any, attention: SharedPrefixAttention, cos_sin: tuple[Tensor, Tensor]) -> bool:
    """Compare with the layers themselves on random hidden states."""
    if not all(torch.equal(*values.chunk(2, -1)) for values in cos_sin):
        return False
    plain = SharedPrefixAttention(attention.layout, attention.preferred)
    shape = (*cos_sin[0].shape[:2], language.layers[0].self_attn.q_proj.in_features)
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for layer in language.layers:
        inner = layer.self_attn
        blocks = plain.blocks(hidden, inner.head_dim, inner.scaling)
        if blocks is None:
            return False
        expected = layer(hidden, attention_mask=None, position_embeddings=cos_sin, attention_backend=plain)
        expected = expected[0] if isinstance(expected, tuple) else expected
        found = FusedLayers(cos_sin[0][0], cos_sin[1][0], blocks)(layer, hidden)
        if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            return False
    return True


class Shape(NamedTuple):
    """Sizes and constants of a layer; ``keeps``: activations are kept for the backward pass."""

    heads: int
    groups: int
    size: int
    epsilons: tuple[float, float]
    keeps: bool


class Values(NamedTuple):
    """What a layer has computed on S tokens.

    Attributes:
        size: (S, 1) reciprocal of the first norm.
        rotated: (S, H + K, D) queries and keys.
        value: (S, K, D).
        found: (S, H, D) by attention.
        lse: (S, H) log-sum-exp of the scores.
        middle: (S, C) after attention.
        middle_size: (S, 1) reciprocal of the second norm.
        opened: (S, 2 · I) gate and what it is multiplied by.
    """

    size: Tensor
    rotated: Tensor
    value: Tensor
    found: Tensor
    lse: Tensor
    middle: Tensor
    middle_size: Tensor
    opened: Tensor


class _LayerFunction(torch.autograd.Function):
    """Hidden states (S, C) → (S, C)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        cosines: Tensor,
        sines: Tensor,
        blocks: Blocks,
        shape: Shape,
        *weights: Tensor | None,
    ) -> Tensor:
        values = _values(hidden, cosines, sines, blocks, shape, weights)
        ctx.blocks, ctx.shape = blocks, shape
        ctx.save_for_backward(hidden, cosines, sines, *weights, *(values if shape.keeps else ()))
        gated, other = values.opened.chunk(2, 1)
        closing: Any = weights[-1]
        return torch.addmm(values.middle, silu(gated).mul_(other), closing.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, cosines, sines, *saved = ctx.saved_tensors
        weights, kept = saved[: len(NAMES)], saved[len(NAMES) :]
        rest = (cosines, sines, ctx.blocks, ctx.shape, weights)
        values = Values(*kept) if kept else _values(hidden, *rest)
        found = _backward(grads[0], hidden, *rest, values)
        return (found[0], None, None, None, None, *found[1:])


NAMES = (
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.v_proj.weight",
    "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.bias",
    "self_attn.o_proj.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
)


def _weights(layer: Any) -> list[Tensor | None]:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return [
        layer.input_layernorm.weight,
        *(one.weight for one in projections),
        *(one.bias for one in projections),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        mlp.gate_proj.weight,
        mlp.up_proj.weight,
        mlp.down_proj.weight,
    ]


def _shape(layer: Any) -> Shape:
    attention = layer.self_attn
    size = attention.head_dim
    return Shape(
        attention.q_proj.out_features // size,
        attention.k_proj.out_features // size,
        size,
        (layer.input_layernorm.variance_epsilon, layer.post_attention_layernorm.variance_epsilon),
        not (getattr(layer, "gradient_checkpointing", False) and layer.training),
    )


def _values(
    hidden: Tensor,
    cosines: Tensor,
    sines: Tensor,
    blocks: Blocks,
    shape: Shape,
    weights: Sequence[Any],
) -> Values:
    first, *projections, output, second, gate, up, _ = weights
    matrix, bias = _joined(projections)
    size = _reciprocal(hidden, shape.epsilons[0])
    normed = _normed(hidden, size, first)
    projected = normed @ matrix.t() if bias is None else torch.addmm(bias, normed, matrix.t())
    heads = projected.unflatten(1, (-1, shape.size))
    rotated = torch.empty_like(heads[:, : -shape.groups], memory_format=torch.contiguous_format)
    _rotate(heads[:, : -shape.groups], cosines, sines, rotated)
    value = heads[:, -shape.groups :]
    found, lse = blocks.forward(rotated[:, : shape.heads], rotated[:, shape.heads :], value)
    middle = torch.addmm(hidden, found.flatten(1), output.t())
    middle_size = _reciprocal(middle, shape.epsilons[1])
    opened = _normed(middle, middle_size, second) @ torch.cat([gate, up]).t()
    return Values(size, rotated, value, found, lse, middle, middle_size, opened)


def _backward(
    grad: Tensor,
    hidden: Tensor,
    cosines: Tensor,
    sines: Tensor,
    blocks: Blocks,
    shape: Shape,
    weights: Sequence[Any],
    values: Values,
) -> list[Tensor | None]:
    """Return the gradients of the input and of ``NAMES``."""
    first, *projections, output, second, gate, up, closing = weights
    gated, other = values.opened.chunk(2, 1)
    active = silu(gated)
    of_product = grad @ closing
    of_closing = grad.t() @ (active * other)
    of_opened = torch.empty_like(values.opened)
    torch.mul(of_product, active, out=of_opened[:, gated.shape[1] :])
    of_opened[:, : gated.shape[1]] = aten.silu_backward(of_product.mul_(other), gated)
    normed = _normed(values.middle, values.middle_size, second)
    of_gate, of_up = (of_opened.t() @ normed).chunk(2)
    of_normed = of_opened @ torch.cat([gate, up])
    of_middle, of_second = _norm_backward(of_normed, values.middle, values.middle_size, second)
    of_middle += grad
    of_found = of_middle @ output
    of_output = of_middle.t() @ values.found.flatten(1)
    query, key = values.rotated[:, : shape.heads], values.rotated[:, shape.heads :]
    of_query, of_key, of_value = blocks.backward(
        of_found.view_as(values.found), query, key, values.value, values.found, values.lse
    )
    table = values.value.new_empty(len(hidden), shape.heads + 2 * shape.groups, shape.size)
    # A rotation's inverse is that by the opposite angle.
    _rotate(of_query, cosines, -sines, table[:, : shape.heads])
    _rotate(of_key, cosines, -sines, table[:, shape.heads : -shape.groups])
    table[:, -shape.groups :] = of_value
    of_heads = table.flatten(1)
    matrix, bias = _joined(projections)
    normed = _normed(hidden, values.size, first)
    sizes = [one.shape[0] for one in projections[:3]]
    of_matrices = (of_heads.t() @ normed).split(sizes)
    of_biases = [None] * 3 if bias is None else of_heads.sum(0).split(sizes)
    of_hidden, of_first = _norm_backward(of_heads @ matrix, hidden, values.size, first)
    of_hidden += of_middle
    return [
        of_hidden, of_first, *of_matrices, *of_biases, of_output, of_second, of_gate, of_up, of_closing
    ]  # fmt: skip


def _joined(projections: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    """Return the matrix ((H + 2 · K) · D, C) and the bias of queries, keys and values together."""
    matrices, biases = list(projections[:3]), [one for one in projections[3:] if one is not None]
    return torch.cat(matrices), torch.cat(biases) if biases else None


def _reciprocal(values: Tensor, epsilon: float) -> Tensor:
    """Return 1 / sqrt(mean of squares + epsilon) of each row (S, 1)."""
    size = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return size.square_().div_(values.shape[1]).add_(epsilon).rsqrt_()


def _normed(values: Tensor, reciprocal: Tensor, weight: Tensor) -> Tensor:
    return (values * reciprocal).mul_(weight)


def _norm_backward(grad: Tensor, values: Tensor, reciprocal: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the values and of the weight from that of ``_normed``."""
    scaled = values * reciprocal
    product = grad * scaled
    mean = (product @ weight).div_(-values.shape[1])
    of_values = (grad * weight).addcmul_(scaled, mean.unsqueeze(1)).mul_(reciprocal)
    return of_values, product.sum(0)


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor, out: Tensor) -> None:
    """Write heads (S, H, D) rotated by the angles of cosines and sines (S, D), whose halves are equal."""
    half = heads.shape[-1] // 2
    cosines, sines = cosines[:, None, :half], sines[:, None, :half]
    first, second = heads.split(half, -1)
    torch.mul(first, cosines, out=out[..., :half]).addcmul_(second, sines, value=-1)
    torch.mul(second, cosines, out=out[..., half:]).addcmul_(first, sines)
