"""Small decoder layers whose parts are known, so that they can be computed with fewer operations.

A layer of the tiny policy spends much of its time on starting small operations. What replaces its operations
copies weights, and in larger models products take most of the time, so that these keep their layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mm_cpgd.policy.sharding.tensors import is_sharded

# Largest copy of the layers' weights.
LARGEST_COPY = 16 * 2**20
OF_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
OF_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
OF_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
# Differences that rounding explains, relative and absolute; values have a size of about one.
TOLERANCE = 1e-4


def are_small_and_known(language: Any) -> bool:
    """Return whether the layers are small, in float32 on a CPU, and made of parts that are known.

    That these parts compute what their names say, only a comparison with the layer shows.
    """
    parameters = list(language.layers.parameters())
    if any(one.device.type != "cpu" or one.dtype != torch.float32 or is_sharded(one) for one in parameters):
        return False
    if torch.is_autocast_enabled("cpu") or 4 * sum(one.numel() for one in parameters) > LARGEST_COPY:
        return False
    return all(_is_known(layer) for layer in language.layers)


def _is_known(layer: Any) -> bool:
    parts = {name for name, _ in layer.named_children()}
    if parts != OF_LAYER or any(map(_is_changed, layer.modules())):
        return False
    attention, mlp = layer.self_attn, layer.mlp
    return (
        {name for name, _ in attention.named_children()} == OF_ATTENTION
        and {name for name, _ in mlp.named_children()} == OF_MLP
        and all(type(one) is nn.Linear for one in _linear_parts(layer))
        and all(hasattr(attention, name) for name in ("head_dim", "scaling", "layer_idx"))
        and all(
            hasattr(norm, "variance_epsilon") and norm.weight is not None
            for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        )
        # Biases of all three or of none; none within the gated product.
        and len({getattr(attention, name).bias is None for name in ("q_proj", "k_proj", "v_proj")}) == 1
        and all(getattr(mlp, name).bias is None for name in ("gate_proj", "up_proj", "down_proj"))
    )


def _linear_parts(layer: Any) -> Iterator[nn.Module]:
    for owner, names in ((layer.self_attn, OF_ATTENTION), (layer.mlp, OF_MLP - {"act_fn"})):
        yield from (getattr(owner, name) for name in names)


def _is_changed(module: nn.Module) -> bool:
    """Return whether calling the module does more than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
