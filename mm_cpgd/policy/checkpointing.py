"""Activation checkpointing: what of a layer is kept for the backward pass, and what it computes again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)

aten: Any = torch.ops.aten

# As ``policy.gradient_checkpointing``.
Checkpointing = Literal["selective"] | bool
ATTENTION = (
    "mm_cpgd.packed_attention",
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._flash_attention_forward",
)
# A second product of adapters widens from their rank by more than this: cheap, with a large result.
WIDEST = 8


def checkpoint_layers(model: Any, checkpointing: Checkpointing) -> None:
    """Recompute activations of the layers, in training mode, in the backward pass."""
    # The newer name in transformers; the older one is deprecated.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(checkpoint_options(checkpointing))
    # It makes embeddings and patches require gradients, as reentrant checkpointing needs; here that would
    # only propagate a gradient through the frozen vision tower.
    model.disable_input_require_grads()


def keeps_attention(language: Any) -> bool:
    """Return whether the layers keep what attention returns, and recompute other things."""
    layer = language.layers[0]
    used = getattr(layer, "_gradient_checkpointing_func", None)
    return layer.training and "context_fn" in getattr(used, "keywords", {})


def checkpointed(run: Callable[[Tensor], Tensor], hidden: Tensor, checkpointing: Checkpointing) -> Tensor:
    """Return ``run(hidden)``; without checkpointing, or gradients, everything is kept as usual."""
    if not checkpointing or not torch.is_grad_enabled():
        return run(hidden)
    found: Tensor = checkpoint(run, hidden, **checkpoint_options(checkpointing))
    return found


def checkpoint_options(checkpointing: Checkpointing) -> dict[str, Any]:
    """Return the options of ``torch.utils.checkpoint.checkpoint``."""
    options: dict[str, Any] = {"use_reentrant": False}
    return options | ({"context_fn": selective_contexts} if checkpointing == "selective" else {})


def selective_contexts() -> Any:
    """Return the contexts of one forward pass of a layer and of its recomputation."""
    counts: dict[bool, int] = {}
    return create_selective_checkpoint_contexts(functools.partial(_policy, counts))


def _policy(
    counts: dict[bool, int], context: SelectiveCheckpointContext, function: Any, *args: Any, **options: Any
) -> CheckpointPolicy:
    """Keep the results of attention, and of every second matrix product that does not narrow.

    Products take as many operations per kept value as they have inputs, so that which of them are kept
    matters little. Narrow results are recomputed cheaply, and nothing in the backward pass needs the last.
    """
    if str(function).removesuffix(".default") in ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    if function not in (aten.mm.default, aten.addmm.default):
        return CheckpointPolicy.PREFER_RECOMPUTE
    inputs, outputs = args[-1].shape
    if not inputs <= outputs <= WIDEST * inputs:
        return CheckpointPolicy.PREFER_RECOMPUTE
    number = counts[context.is_recompute] = counts.get(context.is_recompute, 0) + 1
    return CheckpointPolicy.MUST_SAVE if number % 2 else CheckpointPolicy.PREFER_RECOMPUTE
