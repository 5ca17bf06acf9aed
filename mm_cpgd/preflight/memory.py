"""How much memory a run will take, by part, reckoned from the model's shape: no weight is loaded.

What is left out: the vision tower's short-lived tensors while it is trained, the libraries' own buffers and
what the allocator loses to fragments. A tenth to a fifth on top is a fair margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from mm_cpgd.config.schema import PolicyConfig, RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.families import vision_modules
from mm_cpgd.policy.lora import add_lora
from mm_cpgd.policy.model import EMBEDDED, LOADING_ERRORS

FLOAT = 4
ADAM_MOMENTS = 2
# Logits of a chunk exist in the computing precision once, and in float32 as logits, probabilities, their
# product and their gradient.
LOGIT_COPIES = 4
# While a token is drawn: logits, their masked and scaled copies, log-probabilities, probabilities, their sum.
SAMPLING_COPIES = 6
# An image token stands for 2 x 2 patches in the Qwen family.
PATCHES_A_TOKEN = 4


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks: how many, and the widths of stream, MLP, and keys (values likewise)."""

    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    keys: int = 0


@dataclass(frozen=True)
class ModelSize:
    """Numbers of a model that decide about its memory.

    Attributes:
        kind: the architecture.
        total: parameters, adapters apart.
        adapters: parameters of LoRA.
        trained: parameters that are trained, adapters included.
        vision: parameters of the vision tower.
        weight_bytes: a parameter takes.
        vocabulary: tokens.
        text: the language model's blocks.
        tower: the vision tower's blocks.
    """

    kind: str
    total: int
    adapters: int
    trained: int
    vision: int
    weight_bytes: int
    vocabulary: int
    text: Blocks
    tower: Blocks


@dataclass(frozen=True)
class Part:
    """One part of the memory: bytes held while updating and while sampling, and how they are reckoned."""

    name: str
    update: int
    rollout: int
    how: str


def measure_model(config: PolicyConfig) -> ModelSize:
    """Build the model without weights and count; looks in folders and in the hub's local cache only.

    Raises:
        UserError: there is no such model.
    """
    shape = _shape_of(config)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(shape, trust_remote_code=config.trust_remote_code)
    vision = [p for module in vision_modules(model) for p in module.parameters()]
    if config.freeze_vision:
        for parameter in vision:
            parameter.requires_grad_(False)
    total = sum(p.numel() for p in model.parameters())
    if config.lora:
        add_lora(model, config.lora.rank, config.lora.alpha, config.lora.targets)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return ModelSize(
        kind=type(model).__name__,
        total=total,
        adapters=trained if config.lora else 0,
        trained=trained,
        vision=sum(p.numel() for p in vision),
        weight_bytes=_weight_bytes(config, shape),
        vocabulary=shape.get_text_config().vocab_size,
        text=_blocks(shape.get_text_config()),
        tower=_blocks(getattr(shape, "vision_config", None)),
    )


def estimate_memory(config: RunConfig, size: ModelSize, prompt_tokens: int, *, reference: bool) -> list[Part]:
    """Return the parts of one process's memory, nothing sharded over processes.

    Args:
        config: of the run.
        size: of its model.
        prompt_tokens: of the longest prompt; every prompt is taken to be as long.
        reference: whether the objective needs a reference policy.
    """
    autocast = uses_bfloat16(config.training.mixed_precision)
    compute = 2 if autocast else size.weight_bytes
    parts = [*_held(size, autocast, reference)]
    parts += _of_update(config, size, prompt_tokens, compute)
    parts += _of_rollout(config, size, prompt_tokens, compute)
    return [part for part in parts if part.update or part.rollout]


def total_of(parts: Sequence[Part]) -> Part:
    """Return the sum of all parts."""
    return Part("total", sum(part.update for part in parts), sum(part.rollout for part in parts), "")


def uses_bfloat16(mixed_precision: str) -> bool:
    """Say whether the run computes in bfloat16 on this machine."""
    if mixed_precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return mixed_precision == "bf16"


def _held(size: ModelSize, autocast: bool, reference: bool) -> list[Part]:
    """What lies in memory from the first step to the last."""
    # peft holds adapters in float32 also where the weights below them are bfloat16.
    trained_bytes = FLOAT if size.adapters else size.weight_bytes
    weights = size.total * size.weight_bytes + size.adapters * FLOAT
    copies = 2 * size.trained if autocast and trained_bytes == FLOAT else 0
    copy_of_policy = size.total * size.weight_bytes if reference and not size.adapters else 0
    moments = ADAM_MOMENTS * size.trained * trained_bytes
    each = f"{size.weight_bytes} bytes each" + (", adapters 4" if size.adapters else "")
    return [
        Part("weights", weights, weights, each),
        Part("bf16 copies of weights", copies, copies, "mixed precision casts what is trained"),
        Part("gradients", size.trained * trained_bytes, 0, f"{trained_bytes} bytes a trained parameter"),
        Part("optimizer state", moments, moments, "AdamW: two moments of each trained parameter"),
        Part("reference policy", copy_of_policy, copy_of_policy, "a frozen copy"),
    ]


def _of_update(config: RunConfig, size: ModelSize, prompt_tokens: int, compute: int) -> list[Part]:
    # A row longer than the budget runs alone.
    tokens = max(config.training.micro_batch_tokens, prompt_tokens + config.rollout.max_new_tokens)
    checkpointing = config.policy.gradient_checkpointing
    activations = tokens * _kept(size, size.text, compute, checkpointing)
    if not config.policy.freeze_vision and not size.adapters:
        patches = tokens * PATCHES_A_TOKEN
        activations += patches * _kept(size, size.tower, compute, checkpointing)
    chunk = min(config.training.logprob_chunk, tokens)
    logits = chunk * size.vocabulary * (compute + LOGIT_COPIES * FLOAT)
    kept = "layer inputs and one layer" if checkpointing else "all layers"
    return [
        Part("activations of a micro-batch", activations, 0, f"{tokens:,} tokens, {kept}"),
        Part("logits of a chunk", logits, 0, f"{chunk:,} tokens × {size.vocabulary:,}"),
    ]


def _of_rollout(config: RunConfig, size: ModelSize, prompt_tokens: int, compute: int) -> list[Part]:
    prompts = min(config.rollout.batch_prompts, config.rollout.prompts)
    rows, new = prompts * config.rollout.completions, config.rollout.max_new_tokens
    copies = prompts if config.rollout.shared_prefix else rows
    cached = copies * prompt_tokens + rows * new
    cache = cached * size.text.layers * 2 * size.text.keys * compute
    prefill = (
        prompts
        * prompt_tokens
        * max(_passing(size.text, compute), PATCHES_A_TOKEN * _passing(size.tower, compute))
    )
    logits = rows * size.vocabulary * (compute + SAMPLING_COPIES * FLOAT)
    return [
        Part("rollout: KV cache", 0, cache, f"{copies} × {prompt_tokens:,} + {rows} × {new:,} tokens"),
        # The two do not meet: prompts are read before the first token is drawn.
        Part(
            "rollout: reading or drawing", 0, max(prefill, logits), f"{prompts} prompts, {rows} completions"
        ),
    ]


def _kept(size: ModelSize, blocks: Blocks, compute: int, checkpointing: bool) -> int:
    """Return the bytes that a token leaves for the backward pass."""
    # Two norms keep their input and its normalised form in float32 or as stored, and give a linear layer its
    # input; attention keeps queries, keys, values and its output; a gated MLP keeps gate, activated gate,
    # other half and product.
    norms = 2 * blocks.hidden * (FLOAT + size.weight_bytes + compute)
    layer = norms + compute * (4 * blocks.hidden + 4 * blocks.intermediate)
    if size.adapters:
        layer += compute * 3 * blocks.hidden  # each adapter casts the shared input for itself
    return (
        blocks.layers * size.weight_bytes * blocks.hidden + layer if checkpointing else blocks.layers * layer
    )


def _passing(blocks: Blocks, compute: int) -> int:
    """Return the bytes a token takes at the widest place of a layer when nothing is kept."""
    return compute * (4 * blocks.hidden + 3 * blocks.intermediate)


def _blocks(shape: Any) -> Blocks:
    """Read the sizes under the names that the families give them."""

    def first(*names: str, default: int = 0) -> int:
        return int(next((v for name in names if (v := getattr(shape, name, None))), default))

    hidden = first("hidden_size", "embed_dim")
    heads = first("num_attention_heads", "num_heads", default=1)
    head = first("head_dim", default=hidden // heads)
    mlp = first("intermediate_size", default=hidden * first("mlp_ratio", default=4))
    if experts := first("num_experts_per_tok"):
        mlp = experts * first("moe_intermediate_size", default=mlp)
    keys = head * first("num_key_value_heads", default=heads)
    return Blocks(first("num_hidden_layers", "depth"), hidden, mlp, keys)


def _weight_bytes(config: PolicyConfig, shape: Any) -> int:
    """Return the bytes of a weight as ``load_policy`` loads it."""
    if config.dtype != "auto":
        return 2 if config.dtype == "bfloat16" else FLOAT
    stored = shape.dtype or getattr(shape.get_text_config(), "dtype", None)
    if config.lora and torch.cuda.is_available() and isinstance(stored, torch.dtype):
        return stored.itemsize
    return FLOAT


def _shape_of(config: PolicyConfig) -> Any:
    folder = EMBEDDED.get(config.model, Path(config.model).expanduser())
    try:
        return AutoConfig.from_pretrained(
            str(folder) if folder.is_dir() else config.model,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
        )
    except LOADING_ERRORS as error:
        raise UserError(
            f"policy.model={config.model!r} is neither a folder with a model here nor in the hub's cache"
        ) from error
