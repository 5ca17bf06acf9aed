"""Dimensions of a model that determine its memory, counted on a model without weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from mm_cpgd.config.schema import LoraConfig, PolicyConfig
from mm_cpgd.policy.families import language_model, vision_modules, vision_parameters
from mm_cpgd.policy.lora.layers import add_lora, linear_layers
from mm_cpgd.policy.support import check_parts
from mm_cpgd.preflight.model_source import FoundConfig, find_config

# Unit of everything that belongs to no layer and no block.
ROOT = "root"


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks: number of layers, widths of hidden states, MLP and keys, query heads."""

    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    keys: int = 0
    heads: int = 0


@dataclass(frozen=True)
class Weight:
    """One parameter.

    Attributes:
        shape: its dimensions.
        unit: name of the decoder layer or vision block that it belongs to, or ``ROOT``.
        vision: whether it is part of the vision tower.
        trained: whether it has a gradient.
        adapter: whether it is LoRA's.
        packed: whether it is kept in 4 bits.
    """

    shape: tuple[int, ...]
    unit: str = ROOT
    vision: bool = False
    trained: bool = True
    adapter: bool = False
    packed: bool = False

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def part(self, processes: int) -> int:
        """Return the values that the process with the largest part holds, in rows of the first axis."""
        if not self.shape:
            return 1
        return -(-self.shape[0] // processes) * math.prod(self.shape[1:])


@dataclass(frozen=True)
class ModelSize:
    """Parameters and dimensions of a model.

    Attributes:
        kind: architecture.
        weights: all parameters; one that several modules share is there once.
        stored: bytes per weight in the model's files.
        vocabulary: number of rows of the language head.
        head: number of weights of the head.
        text: the language model's blocks.
        tower: the vision tower's blocks.
        source: where the dimensions come from.
    """

    kind: str
    weights: tuple[Weight, ...]
    stored: int
    vocabulary: int
    head: int
    text: Blocks
    tower: Blocks
    source: str = ""

    @cached_property
    def total(self) -> int:
        """Parameters without adapters."""
        return counted(one for one in self.weights if not one.adapter)

    @cached_property
    def adapters(self) -> int:
        """Parameters of LoRA."""
        return counted(one for one in self.weights if one.adapter)

    @cached_property
    def trained(self) -> int:
        """Parameters that are trained, adapters included."""
        return counted(one for one in self.weights if one.trained)

    @cached_property
    def vision(self) -> int:
        """Parameters of the vision tower."""
        return counted(one for one in self.weights if one.vision and not one.adapter)

    @cached_property
    def largest(self) -> int:
        """Parameters of the largest tensor."""
        return max(one.count for one in self.weights)

    @property
    def trains_head(self) -> bool:
        """Whether the language head is trained."""
        return not self.adapters

    def whole_vision(self) -> bool:
        """Return whether the vision tower is frozen, and so stays whole on every process."""
        return not any(one.vision and one.trained for one in self.weights)


def counted(weights: Iterable[Weight]) -> int:
    """Return the number of values of all weights."""
    return sum(one.count for one in weights)


def measure_model(policy: PolicyConfig, found: FoundConfig | None = None) -> ModelSize:
    """Build the model without weights and count its parameters.

    Args:
        policy: the config's policy section.
        found: config of the model; None: ``find_config`` finds it.

    Raises:
        UserError: there is no config, or the model's parts are not where they are looked for.
    """
    found = found or find_config(policy)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            found.config, trust_remote_code=policy.trust_remote_code and found.folder is not None
        )
    check_parts(policy.model, model)
    head = model.get_output_embeddings()
    if policy.freeze_vision:
        for parameter in vision_parameters(model):
            parameter.requires_grad_(False)
    packed: set[int] = set()
    if lora := policy.lora:
        if lora.quantize:
            packed = {id(model.get_submodule(name).weight) for name in linear_layers(model)}
        add_lora(model, lora.rank, lora.alpha, lora.targets, vision=lora.vision, dora=lora.dora)
    tower = set(vision_parameters(model))
    text = found.config.get_text_config()
    return ModelSize(
        kind=type(model).__name__,
        weights=tuple(_weights(model, tower, packed)),
        stored=_stored_bytes(found.config),
        vocabulary=text.vocab_size,
        head=0 if head is None else head.weight.numel(),
        text=_blocks(text),
        tower=_blocks(getattr(found.config, "vision_config", None)),
        source=found.source,
    )


def with_lora(size: ModelSize, policy: PolicyConfig, found: FoundConfig, lora: LoraConfig) -> ModelSize:
    """Return the size of the same model with adapters."""
    changed = policy.model_copy(update={"lora": lora, "freeze_vision": True})
    return replace(measure_model(changed, found), source=size.source)


def _weights(model: Any, tower: set[nn.Parameter], packed: set[int]) -> Iterable[Weight]:
    units = _units(model)
    for name, parameter in model.named_parameters():
        yield Weight(
            tuple(parameter.shape),
            units.get(id(parameter), ROOT),
            parameter in tower,
            parameter.requires_grad,
            ".lora_" in name,
            id(parameter) in packed,
        )


def _units(model: Any) -> dict[int, str]:
    """Return the unit of every parameter that is part of a layer or a block, by the parameter's ``id``."""
    layers = getattr(language_model(model), "layers", [])
    stacks = {"layer": list(layers), "block": _longest_list(vision_modules(model))}
    return {
        id(parameter): f"{kind} {number}"
        for kind, modules in stacks.items()
        for number, module in enumerate(modules)
        for parameter in module.parameters()
    }


def _longest_list(modules: Iterable[nn.Module]) -> list[nn.Module]:
    lists = [list(child) for one in modules for child in one.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _blocks(stack: Any) -> Blocks:
    """Return the dimensions, under whichever names the model family uses."""

    def first(*names: str, default: int = 0) -> int:
        return int(next((v for name in names if (v := getattr(stack, name, None))), default))

    # Qwen2-VL calls the tower's own width embed_dim, and its output hidden_size.
    hidden = first("embed_dim", "hidden_size")
    heads = first("num_attention_heads", "num_heads", default=1)
    head = first("head_dim", default=hidden // heads)
    mlp = first("intermediate_size", default=hidden * first("mlp_ratio", default=4))
    if experts := first("num_experts_per_tok"):
        mlp = experts * first("moe_intermediate_size", default=mlp)
    keys = head * first("num_key_value_heads", default=heads)
    return Blocks(first("num_hidden_layers", "depth"), hidden, mlp, keys, heads)


def _stored_bytes(config: Any) -> int:
    stored = config.dtype or getattr(config.get_text_config(), "dtype", None)
    if isinstance(stored, str):
        stored = getattr(torch, stored, None)
    return stored.itemsize if isinstance(stored, torch.dtype) else 4
