"""Low-rank adapters (peft) on the language model and, by choice, the vision tower; and their merging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mm_cpgd.errors import UserError
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.policy.sharding.tensors import full_value

# Name of the only adapter in peft's modules, which files of adapters leave out.
ADAPTER = "default"


def add_lora(
    model: Any,
    rank: int,
    alpha: int,
    targets: Sequence[str] | str,
    *,
    vision: bool = False,
    dora: bool = False,
) -> Any:
    """Add adapters to linear layers and freeze everything else.

    Args:
        model: with its language head, which gets no adapter; changed in place.
        rank: rank of the adapters.
        alpha: the adapters' output is scaled by alpha / rank.
        targets: names of linear layers (``q_proj`` …), or ``all-linear``.
        vision: whether layers of the vision tower and its projector get adapters too.
        dora: whether the norms of the weights' rows are trained apart from their directions (DoRA, Liu et al.
            2024, arXiv:2402.09353, equation 5).

    Returns:
        The peft wrapper around the model.

    Raises:
        UserError: no linear layer has one of the names.
    """
    from peft import LoraConfig, get_peft_model

    from mm_cpgd.policy.lora.linear import accumulate

    layers = linear_layers(model, vision=vision)
    chosen = [name for name in layers if targets == "all-linear" or name.rsplit(".", 1)[-1] in targets]
    if not chosen:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers}))
        where = "language model or the vision tower" if vision else "language model"
        raise UserError(f"policy.lora.targets={targets!r} names no linear layer of the {where}: {known}")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, use_dora=dora)
    # In float32 whatever the model is in: in bfloat16 their steps would be rounded away.
    with _as_float32([model.get_submodule(name) for name in chosen]), _by_exact_names(model):
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    if dora:
        _measure_norms(model)
    accumulate(model)
    return adapted


@contextmanager
def _as_float32(layers: Sequence[Any]) -> Iterator[None]:
    """Give layers weights of zeros in float32, without memory, for a while; freeze their own.

    peft rounds an adapter's first values to the format of the layer's weight. A sharded run, whose weights
    are still in the format of their files then, would start from other adapters than one process.
    """
    # Quantized weights are packed, and peft takes float32 for their adapters anyway.
    layers = [layer for layer in layers if layer.weight.is_floating_point()]
    weights = [layer.weight.requires_grad_(False) for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        zeros = torch.zeros((), device=weight.device).expand(weight.shape)
        layer.weight = nn.Parameter(zeros, requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight


@contextmanager
def _by_exact_names(model: Any) -> Iterator[None]:
    """Keep peft from taking dense layers of a known family for its experts, which have the same names.

    It would adapt all experts in their place.
    """
    config = model.config
    config.model_type = ""  # in place of the class's
    try:
        yield
    finally:
        del config.model_type


@torch.no_grad()
def _measure_norms(model: nn.Module) -> None:
    """Set DoRA's norms to those of the weights' rows, which peft has measured on zeros."""
    for layer in _adapted_layers(model).values():
        norms = torch.linalg.norm(_plain(layer.get_base_layer(), torch.float32), dim=1)
        layer.lora_magnitude_vector[ADAPTER].weight = nn.Parameter(norms)


def linear_layers(model: Any, *, vision: bool = False) -> list[str]:
    """Return the names of the linear layers of the language model and, by choice, the vision tower."""
    head = model.get_output_embeddings()
    left_out = {head} if vision else {head, *(m for tower in vision_modules(model) for m in tower.modules())}
    # torch computes with the weights of this module's projection directly, past any adapter.
    fused = {
        child for one in model.modules() if isinstance(one, nn.MultiheadAttention) for child in one.modules()
    }
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module not in left_out and module not in fused
    ]


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state dict with the adapters merged in, under the names of the plain model.

    The merged weights are new tensors on the CPU: the live policy does not change, and the device does not
    have to hold a second copy.
    """
    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in _adapted_layers(model).items():
        weights[name.replace(".base_layer.", ".")] = _merged(layer).cpu()
    return weights


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield name and whole value of every tensor of a model's files, one at a time, with adapters merged in.

    Names are those of the plain model; a weight that several modules share comes once, a quantized one in the
    number format that it is computed in. Sharded weights are gathered as they are asked for, so all processes
    have to go through this in step.
    """
    adapted = _adapted_layers(model)
    for name, tensor, module in _stored_tensors(model):
        layer = adapted.get(name)
        value = _whole(tensor, module) if layer is None else _merged(layer)
        yield name.replace(".base_layer.", "."), value


def named_sizes(model: nn.Module) -> list[tuple[str, int]]:
    """Return name and bytes of what ``named_weights`` yields, in the same order."""
    return [
        (name.replace(".base_layer.", "."), _bytes(tensor, module))
        for name, tensor, module in _stored_tensors(model)
    ]


def is_quantized(model: nn.Module) -> bool:
    """Return whether some weights are packed (bitsandbytes)."""
    return any(_quantization(parameter) is not None for parameter in model.parameters())


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module]]:
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
                yield full, value, module


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
    """Return a layer's weight with its adapter: W + s BA, with DoRA scaled to the norms of the rows."""
    layout = layer.get_base_layer()
    base = _whole(layout.weight, layout)
    # Added in float32: a small delta would be lost if it were rounded to bfloat16 before the addition.
    merged = base.float()
    if ADAPTER in layer.active_adapters:
        merged = merged + _delta(layer)
        if ADAPTER in layer.lora_magnitude_vector:
            norms = full_value(layer.lora_magnitude_vector[ADAPTER].weight).float()
            merged = merged * (norms / torch.linalg.norm(merged, dim=1)).unsqueeze(1)
    return merged.to(base.dtype)


def _delta(layer: Any) -> Tensor:
    """Return what the adapter adds to the weight of a linear layer."""
    down, up = full_value(layer.lora_A[ADAPTER].weight), full_value(layer.lora_B[ADAPTER].weight)
    return (up @ down * layer.scaling[ADAPTER]).float()


def _quantization(weight: Tensor) -> Any:
    """Return how bitsandbytes has packed a weight, None if it has not."""
    return getattr(weight, "quant_state", None)


def _whole(tensor: Tensor, module: nn.Module) -> Tensor:
    """Return a tensor gathered, and unpacked if it is quantized."""
    if _quantization(tensor) is None:
        return full_value(tensor)
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(module).detach()


def _plain(module: Any, dtype: torch.dtype) -> Tensor:
    return _whole(module.weight, module).to(dtype)


def _bytes(tensor: Tensor, module: nn.Module) -> int:
    packing = _quantization(tensor)
    if packing is None:
        return tensor.numel() * tensor.element_size()
    return int(packing.shape.numel()) * packing.dtype.itemsize
