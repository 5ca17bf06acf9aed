"""Estimate of a run's memory, item by item, from the model's dimensions; no weights are loaded.

Not included: the vision tower's temporary tensors while it is trained, the libraries' own buffers, and the
allocator's fragmentation. A margin of a tenth to a fifth covers them.
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
from mm_cpgd.policy.support import check_parts

FLOAT = 4
ADAM_MOMENTS = 2
# Logits of a chunk exist once in the precision of the computation, and in float32 as logits, probabilities,
# their product and their gradient.
LOGIT_COPIES = 4
# While a token is sampled: logits, their masked and scaled copies, log-probabilities, probabilities,
# their sum.
SAMPLING_COPIES = 6
# An image token of the Qwen family represents 2 x 2 patches.
PATCHES_PER_TOKEN = 4


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks: number of layers, and widths of hidden states, MLP and keys."""

    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    keys: int = 0


@dataclass(frozen=True)
class ModelSize:
    """Numbers of a model that determine its memory.

    Attributes:
        kind: architecture.
        total: parameters, without adapters.
        adapters: parameters of LoRA.
        trained: parameters that are trained, adapters included.
        vision: parameters of the vision tower.
        weight_bytes: bytes per parameter.
        vocabulary: number of tokens.
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
class MemoryItem:
    """One item of the memory: bytes in use while updating and while sampling, and how they are computed."""

    name: str
    update: int
    rollout: int
    how: str


def measure_model(config: PolicyConfig) -> ModelSize:
    """Build the model without weights and count its parameters; uses only folders and the hub's local cache.

    Raises:
        UserError: the model is in neither place, or its parts are not where they are looked for.
    """
    model_config = _model_config(config)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            model_config, trust_remote_code=config.trust_remote_code
        )
    check_parts(config.model, model)
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
        weight_bytes=_weight_bytes(config, model_config),
        vocabulary=model_config.get_text_config().vocab_size,
        text=_blocks(model_config.get_text_config()),
        tower=_blocks(getattr(model_config, "vision_config", None)),
    )


def estimate_memory(
    config: RunConfig, size: ModelSize, prompt_tokens: int, *, reference: bool
) -> list[MemoryItem]:
    """Return the items of one process's memory, with nothing sharded over processes.

    Args:
        config: the run's config.
        size: size of its model.
        prompt_tokens: length of the longest prompt; all prompts are assumed to be that long.
        reference: whether the objective needs a reference policy.
    """
    autocast = uses_bfloat16(config.training.mixed_precision)
    compute = 2 if autocast else size.weight_bytes
    items = [
        *_persistent_items(size, autocast, reference),
        *_update_items(config, size, prompt_tokens, compute),
        *_rollout_items(config, size, prompt_tokens, compute),
    ]
    return [item for item in items if item.update or item.rollout]


def total_of(items: Sequence[MemoryItem]) -> MemoryItem:
    """Return the sum of all items."""
    return MemoryItem("total", sum(item.update for item in items), sum(item.rollout for item in items), "")


def uses_bfloat16(mixed_precision: str) -> bool:
    """Return whether the run computes in bfloat16 on this machine."""
    if mixed_precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return mixed_precision == "bf16"


def _persistent_items(size: ModelSize, autocast: bool, reference: bool) -> list[MemoryItem]:
    """Return what stays in memory from the first step to the last."""
    # peft keeps adapters in float32 even if the weights that they adapt are bfloat16.
    trained_bytes = FLOAT if size.adapters else size.weight_bytes
    weights = size.total * size.weight_bytes + size.adapters * FLOAT
    copies = 2 * size.trained if autocast and trained_bytes == FLOAT else 0
    copy_of_policy = size.total * size.weight_bytes if reference and not size.adapters else 0
    moments = ADAM_MOMENTS * size.trained * trained_bytes
    each = f"{size.weight_bytes} bytes each" + (", adapters 4" if size.adapters else "")
    return [
        MemoryItem("weights", weights, weights, each),
        MemoryItem("bf16 copies of weights", copies, copies, "mixed precision casts trained weights"),
        MemoryItem(
            "gradients", size.trained * trained_bytes, 0, f"{trained_bytes} bytes per trained parameter"
        ),
        MemoryItem("optimizer state", moments, moments, "AdamW: two moments per trained parameter"),
        MemoryItem("reference policy", copy_of_policy, copy_of_policy, "a frozen copy"),
    ]


def _update_items(config: RunConfig, size: ModelSize, prompt_tokens: int, compute: int) -> list[MemoryItem]:
    # A row longer than the budget runs alone.
    tokens = max(config.training.micro_batch_tokens, prompt_tokens + config.rollout.max_new_tokens)
    checkpointing = config.policy.gradient_checkpointing
    activations = tokens * _saved_bytes(size, size.text, compute, checkpointing)
    if not config.policy.freeze_vision and not size.adapters:
        patches = tokens * PATCHES_PER_TOKEN
        activations += patches * _saved_bytes(size, size.tower, compute, checkpointing)
    chunk = min(config.training.logprob_chunk, tokens)
    logits = chunk * size.vocabulary * (compute + LOGIT_COPIES * FLOAT)
    kept = "layer inputs and one layer" if checkpointing else "all layers"
    return [
        MemoryItem("activations of a micro-batch", activations, 0, f"{tokens:,} tokens, {kept}"),
        MemoryItem("logits of a chunk", logits, 0, f"{chunk:,} tokens × {size.vocabulary:,}"),
    ]


def _rollout_items(config: RunConfig, size: ModelSize, prompt_tokens: int, compute: int) -> list[MemoryItem]:
    prompts = min(config.rollout.batch_prompts, config.rollout.prompts)
    rows, new = prompts * config.rollout.completions, config.rollout.max_new_tokens
    copies = prompts if config.rollout.shared_prefix else rows
    cached = copies * prompt_tokens + rows * new
    cache = cached * size.text.layers * 2 * size.text.keys * compute
    prefill = (
        prompts
        * prompt_tokens
        * max(_transient_bytes(size.text, compute), PATCHES_PER_TOKEN * _transient_bytes(size.tower, compute))
    )
    logits = rows * size.vocabulary * (compute + SAMPLING_COPIES * FLOAT)
    return [
        MemoryItem("rollout: KV cache", 0, cache, f"{copies} × {prompt_tokens:,} + {rows} × {new:,} tokens"),
        # Never both at once: the prompts are prefilled before the first token is sampled.
        MemoryItem(
            "rollout: prefill or sampling", 0, max(prefill, logits), f"{prompts} prompts, {rows} completions"
        ),
    ]


def _saved_bytes(size: ModelSize, blocks: Blocks, compute: int, checkpointing: bool) -> int:
    """Return the bytes that a token keeps for the backward pass."""
    # Two norms keep their input and its normalised form, in float32 or as stored, and the input of the next
    # linear layer; attention keeps queries, keys, values and its output; a gated MLP keeps gate, activated
    # gate, up projection and product.
    norms = 2 * blocks.hidden * (FLOAT + size.weight_bytes + compute)
    layer = norms + compute * (4 * blocks.hidden + 4 * blocks.intermediate)
    if size.adapters:
        layer += compute * 3 * blocks.hidden  # each adapter casts the shared input separately
    return (
        blocks.layers * size.weight_bytes * blocks.hidden + layer if checkpointing else blocks.layers * layer
    )


def _transient_bytes(blocks: Blocks, compute: int) -> int:
    """Return the bytes per token at the widest point of a layer when nothing is kept."""
    return compute * (4 * blocks.hidden + 3 * blocks.intermediate)


def _blocks(stack: Any) -> Blocks:
    """Return the dimensions, under whichever names the model family uses."""

    def first(*names: str, default: int = 0) -> int:
        return int(next((v for name in names if (v := getattr(stack, name, None))), default))

    hidden = first("hidden_size", "embed_dim")
    heads = first("num_attention_heads", "num_heads", default=1)
    head = first("head_dim", default=hidden // heads)
    mlp = first("intermediate_size", default=hidden * first("mlp_ratio", default=4))
    if experts := first("num_experts_per_tok"):
        mlp = experts * first("moe_intermediate_size", default=mlp)
    keys = head * first("num_key_value_heads", default=heads)
    return Blocks(first("num_hidden_layers", "depth"), hidden, mlp, keys)


def _weight_bytes(config: PolicyConfig, model_config: Any) -> int:
    """Return the bytes per weight as ``load_policy`` loads it."""
    if config.dtype != "auto":
        return 2 if config.dtype == "bfloat16" else FLOAT
    stored = model_config.dtype or getattr(model_config.get_text_config(), "dtype", None)
    if config.lora and torch.cuda.is_available() and isinstance(stored, torch.dtype):
        return stored.itemsize
    return FLOAT


def _model_config(config: PolicyConfig) -> Any:
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
            f"policy.model={config.model!r} is neither a local folder with a model nor in the hub's cache"
        ) from error
