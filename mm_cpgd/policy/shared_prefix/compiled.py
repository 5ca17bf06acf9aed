"""Decoder layers of the update as compiled functions: one graph for all layers and all lengths.

Sampling, and models without shared prefixes, run the layers as they are.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import maybe_mark_dynamic

from mm_cpgd.errors import UserError
from mm_cpgd.policy.checkpointing import Checkpointing, checkpointed
from mm_cpgd.policy.shared_prefix.choice import wants_flex
from mm_cpgd.policy.shared_prefix.operator import OperatorAttention, layout_lengths
from mm_cpgd.policy.shared_prefix.packing import PackedLayout

# One token is a length of its own for the compiler.
FEWEST_TOKENS = 2


@dataclass
class Compilation:
    """How the layers of a model are compiled.

    Attributes:
        checkpointing: what their backward pass computes again; inside of the compiled function.
        required: whether a failure to compile ends the run; otherwise the layers run as they are.
        active: False after such a failure.
    """

    checkpointing: Checkpointing
    required: bool
    active: bool = True


def compile_layers(language: Any, checkpointing: Checkpointing, *, required: bool) -> None:
    """Give each layer a compiled forward pass for ``PackedTokens``; it is compiled at its first call.

    Args:
        language: the language model, with its adapters.
        checkpointing: what the backward pass computes again.
        required: see ``Compilation``.
    """
    language.compilation = Compilation(checkpointing, required)
    for layer in language.layers:
        # In place of ``forward``: the hooks of sharded weights, which ``__call__`` runs, stay outside.
        layer.forward = functools.partial(_forward, layer, language.compilation)


def compiles(language: Any, tokens: int, preferred: str) -> bool:
    """Return whether the layers run compiled on a sequence of so many tokens, with this attention."""
    compilation: Compilation | None = getattr(language, "compilation", None)
    active = compilation is not None and compilation.active
    return active and tokens >= FEWEST_TOKENS and not wants_flex(preferred)


@dataclass(frozen=True)
class PackedTokens:
    """What all layers get besides the hidden states.

    Attributes:
        cos_sin: cosines and sines (…, 1, S, D) of the rotary embedding.
        lengths: ``layout_lengths``.
        preferred: the ``policy.attention`` whose kernel is tried first.
    """

    cos_sin: tuple[Tensor, Tensor]
    lengths: Tensor
    preferred: str


def packed_tokens(layout: PackedLayout, cos_sin: tuple[Tensor, Tensor], preferred: str) -> PackedTokens:
    """Return them for a sequence, with the number of tokens marked as one that varies."""
    cosines, sines = cos_sin
    lengths = layout_lengths(layout)
    for values, axis in ((cosines, cosines.ndim - 2), (sines, sines.ndim - 2), (lengths, 0)):
        maybe_mark_dynamic(values, axis)
    return PackedTokens((cosines, sines), lengths, preferred)


def _forward(layer: Any, compilation: Compilation, *args: Any, packed: Any = None, **options: Any) -> Any:
    """Run the layer, compiled if it gets ``packed``."""
    if packed is None:
        return type(layer).forward(layer, *args, **options)
    hidden = args[0]
    if any(parameter.requires_grad for parameter in layer.parameters()):
        return _with_gradient(layer, compilation, hidden, packed)
    return _call(layer, compilation, hidden, packed)


def _with_gradient(layer: Any, compilation: Compilation, hidden: Tensor, packed: PackedTokens) -> Tensor:
    """Run the graph of the update, also for values without gradients.

    Another graph would round in other places, and the ratio π/π_old would not start at one. The first layer's
    input gets a gradient too, so that its graph is that of the others.
    """
    wanted = torch.is_grad_enabled()
    if not hidden.requires_grad:
        hidden = hidden.detach().requires_grad_()
    with torch.enable_grad():
        out = _call(layer, compilation, hidden, packed)
    return out if wanted else out.detach()


def _call(layer: Any, compilation: Compilation, hidden: Tensor, packed: PackedTokens) -> Tensor:
    plain = inspect.unwrap(type(layer).forward)
    maybe_mark_dynamic(hidden, 1)
    cosines, sines = packed.cos_sin
    checkpointing: Checkpointing = compilation.checkpointing if layer.training else False
    inputs = (plain, layer, hidden, cosines, sines, packed.lengths, packed.preferred, checkpointing)
    if compilation.active:
        try:
            return _compiled()(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            if compilation.required:
                raise UserError(
                    f"policy.compile=true: the layers cannot be compiled: {reason}; set policy.compile=false "
                    "or auto, with which they run as they are"
                ) from error
            compilation.active = False
            warnings.warn(f"the layers run uncompiled: {reason}", stacklevel=2)
    return _layer(*inputs)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(_layer, fullgraph=True)
    return compiled


def _layer(
    plain: Any,
    layer: nn.Module,
    hidden: Tensor,
    cosines: Tensor,
    sines: Tensor,
    lengths: Tensor,
    preferred: str,
    checkpointing: Checkpointing,
) -> Tensor:
    """Run one layer on hidden states (1, S, H); ``plain`` is its class's forward function."""
    backend = OperatorAttention(lengths, preferred)

    def run(states: Tensor) -> Tensor:
        out = plain(
            layer,
            states,
            attention_mask=None,
            position_embeddings=(cosines, sines),
            attention_backend=backend,
        )
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found

    return checkpointed(run, hidden, checkpointing)
