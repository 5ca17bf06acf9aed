"""Last decoder layer on a CPU: of most tokens of a prompt nothing but keys and values is needed there.

Only the hidden states that predict a token of a completion are read: those of the completions and of each
prompt's last token. The last layer's attention sees all tokens; what follows is computed for these alone.
Where layers are compiled, sharded or have hooks, they run as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Parts of a layer that adds attention, and then an MLP, to its input, each after a norm.
PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
# Differences that rounding explains, relative and absolute, in units of the number format's precision.
TOLERANCE = 1000

# Of each layer, whether it is what ``_rows_of`` computes.
_agreeing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def run_last_layer(layer: Any, hidden: Tensor, options: Mapping[str, Any], rows: Tensor) -> Tensor:
    """Return the layer's output (1, R, C) for some tokens.

    Args:
        layer: the last one.
        hidden: (1, S, C).
        options: of the layers' forward pass.
        rows: (R,) tokens whose output is needed; each once where gradients are.
    """
    if "packed" in options or not can_be_split(layer, hidden):
        return _select(_first(layer(hidden, **options)), rows)
    run = functools.partial(_rows_of, layer, options, rows)
    if getattr(layer, "gradient_checkpointing", False) and layer.training and torch.is_grad_enabled():
        found: Tensor = layer._gradient_checkpointing_func(run, hidden)
        return found
    return run(hidden)


def can_be_split(layer: nn.Module, hidden: Tensor) -> bool:
    """Return whether the layer's forward pass is known, from a comparison before its first use."""
    if hidden.device.type != "cpu" or {name for name, _ in layer.named_children()} != PARTS:
        return False
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    if layer not in _agreeing:
        _agreeing[layer] = _agrees(layer, hidden)
    return _agreeing[layer]


def _rows_of(layer: Any, options: Mapping[str, Any], rows: Tensor, hidden: Tensor) -> Tensor:
    attended = _first(layer.self_attn(hidden_states=layer.input_layernorm(hidden), **options))
    hidden = _select(hidden + attended, rows)
    return hidden + _first(layer.mlp(layer.post_attention_layernorm(hidden)))


def _first(found: Any) -> Tensor:
    output: Tensor = found[0] if isinstance(found, tuple) else found
    return output


def _select(values: Tensor, rows: Tensor) -> Tensor:
    selected: Tensor = _Rows.apply(values[0], rows)
    return selected.unsqueeze(0)


class _Rows(torch.autograd.Function):
    """Different rows (R, C) of values (S, C): gradients are copied, where indexing would add them up."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = values.shape
        return values.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, rows, grad), None


class _Mixed:
    """Stands for attention in the comparison: a sum in which query, key and value all count."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See ``AttentionBackend``."""
        others = (key + 2 * value).repeat_interleave(query.shape[1] // key.shape[1], 1)
        return (query * scale + others).transpose(1, 2)


@torch.no_grad()
def _agrees(layer: Any, like: Tensor) -> bool:
    """Compare both ways on five random tokens."""
    size = getattr(layer.self_attn, "head_dim", 0)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 5, like.shape[-1], generator=generator).to(like.dtype)
    angles = torch.randn(1, 5, size, generator=generator).to(like.dtype)
    options = {
        "position_embeddings": (angles.cos(), angles.sin()),
        "attention_mask": None,
        "attention_backend": _Mixed(),
    }
    rows = torch.tensor([1, 2, 4])
    try:
        with _evaluated(layer), torch.autocast("cpu", enabled=False):
            expected = _first(layer(hidden, **options))[:, rows]
            found = _rows_of(layer, options, rows, hidden)
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError):
        return False
    tolerance = TOLERANCE * torch.finfo(like.dtype).eps
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


@contextmanager
def _evaluated(layer: nn.Module) -> Iterator[None]:
    """Put the layer's modules in evaluation mode: random dropout would be a difference."""
    modes = {module: module.training for module in layer.modules()}
    layer.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
