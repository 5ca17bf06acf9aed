"""Weights of linear layers in the number format of autocast, cast once for all tokens that are sampled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from mm_cpgd.policy.families import language_model
from mm_cpgd.policy.sharding.tensors import is_sharded


@contextlib.contextmanager
def cast_weights(model: Any) -> Iterator[None]:
    """Replace the language model's and the head's linear weights by casts within the ``with`` block.

    Without autocast, nothing happens. Results do not change: autocast would cast the same weights for each
    token, or keep the casts as long as it is on, in memory that a CUDA graph must not refer to.
    """
    device = next(model.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        yield
        return
    dtype = torch.get_autocast_dtype(device)
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for layer in _linear_layers(model):
            for name, value in list(layer._parameters.items()):
                if value is not None and value.is_floating_point() and value.dtype != dtype:
                    replaced.append((layer, name, value))
                    layer._parameters[name] = nn.Parameter(value.detach().to(dtype), requires_grad=False)
        yield
    finally:
        for module, name, value in replaced:
            module._parameters[name] = value


def _linear_layers(model: Any) -> list[nn.Linear]:
    """Return the plain linear layers that autocast casts, once each; none if weights are shards."""
    modules = [*language_model(model).modules(), model.get_output_embeddings()]
    if any(is_sharded(parameter) for parameter in model.parameters()):
        return []
    # DoRA computes norms of its weights outside of these layers, in their own format.
    if any(len(getattr(one, "lora_magnitude_vector", ())) for one in modules):
        return []
    return [one for one in dict.fromkeys(modules) if type(one) is nn.Linear]
