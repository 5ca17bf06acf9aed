"""Low-rank adapters on the language model (peft), and the weights with the adapters merged in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mm_cpgd.errors import UserError
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.policy.sharding.tensors import full_value


def add_lora(model: Any, rank: int, alpha: int, targets: Sequence[str] | str) -> Any:
    """Add adapters to the language model and freeze everything else.

    Args:
        model: with its language head; changed in place. Vision tower and head get no adapters.
        rank: rank of the adapters.
        alpha: the adapters' output is scaled by alpha / rank.
        targets: names of linear layers (``q_proj`` …), or ``all-linear``.

    Returns:
        The peft wrapper around the model.

    Raises:
        UserError: no linear layer of the language model has one of the names.
    """
    from peft import LoraConfig, get_peft_model

    layers = _linear_layers(model)
    chosen = [name for name in layers if targets == "all-linear" or name.rsplit(".", 1)[-1] in targets]
    if not chosen:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers}))
        raise UserError(
            f"policy.lora.targets={targets!r} names no linear layer of the language model: {known}"
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen)
    # In float32 whatever the model is in: in bfloat16 their steps would be rounded away.
    with _as_float32([model.get_submodule(name) for name in chosen]):
        return get_peft_model(model, config, autocast_adapter_dtype=True)


@contextmanager
def _as_float32(layers: Sequence[Any]) -> Iterator[None]:
    """Give layers weights of zeros in float32, without memory, for a while; freeze their own.

    peft rounds an adapter's first values to the format of the layer's weight. A sharded run, whose weights
    are still in the format of their files then, would start from other adapters than one process.
    """
    weights = [layer.weight.requires_grad_(False) for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        zeros = torch.zeros((), device=weight.device).expand(weight.shape)
        layer.weight = nn.Parameter(zeros, requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state dict with the adapters merged in, under the names of the plain model.

    The merged weights are new tensors on the CPU: the live policy does not change, and the device does not
    have to hold a second copy.
    """
    from peft.tuners.lora import LoraLayer

    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            weights[f"{name}.weight"] = _merged(module).cpu()
    return weights


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield name and whole value of every tensor of a model's files, one at a time, with adapters merged in.

    Names are those of the plain model; a weight that several modules share comes once. Sharded weights are
    gathered as they are asked for, so all processes have to go through this in step.
    """
    adapted = _adapted_layers(model)
    for name, tensor in _stored_tensors(model):
        layer = adapted.get(name)
        value = full_value(tensor) if layer is None else _merged(layer)
        yield name.replace(".base_layer.", "."), value


def named_sizes(model: nn.Module) -> list[tuple[str, int]]:
    """Return name and bytes of what ``named_weights`` yields, in the same order."""
    return [
        (name.replace(".base_layer.", "."), tensor.numel() * tensor.element_size())
        for name, tensor in _stored_tensors(model)
    ]


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and persistent buffers, module by module, each tensor once; adapters are left out."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        buffers = {
            name: value
            for name, value in module._buffers.items()
            if name not in module._non_persistent_buffers_set
        }
        for name, value in {**module._parameters, **buffers}.items():
            full = f"{path}.{name}" if path else name
            if value is not None and ".lora_" not in full and id(value) not in seen:
                seen.add(id(value))
                yield full, value


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Return the layers with adapters by the name of their base weight."""
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError:
        return {}
    return {
        f"{name}.base_layer.weight": module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


@torch.no_grad()
def _merged(layer: Any) -> Tensor:
    base = full_value(layer.get_base_layer().weight)
    delta = sum(_delta(layer, name) for name in layer.active_adapters)
    # Added in float32: a small delta would be lost if it were rounded to bfloat16 before the addition.
    return (base.float() + delta).to(base.dtype)


def _delta(layer: Any, name: str) -> Tensor:
    """Return what an adapter adds to the weight of a linear layer."""
    down, up = full_value(layer.lora_A[name].weight), full_value(layer.lora_B[name].weight)
    return (up @ down * layer.scaling[name]).float()


def _linear_layers(model: Any) -> list[str]:
    """Return the names of the language model's linear layers."""
    vision = {module for tower in vision_modules(model) for module in tower.modules()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module not in vision
        and module is not model.get_output_embeddings()
    ]
