"""Memory of a micro-batch: activations, logits of a chunk, and the gradients that pass through."""

from __future__ import annotations

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.micro_batch import checkpoints_layers, micro_batch_tokens, micro_batches
from mm_cpgd.preflight.model_size import Blocks, ModelSize
from mm_cpgd.preflight.setting import FLOAT, HALF, Setting

# Of a chunk, in float32: log-probabilities, a copy of them, and their exponentials, while the entropy is
# computed; and log-probabilities, their gradient and that of the logits in the backward pass.
LOGIT_COPIES = 3
# An image token of the Qwen family represents 2 x 2 patches.
PATCHES_PER_TOKEN = 4


def update_items(
    config: RunConfig, size: ModelSize, setting: Setting, prompt_tokens: int
) -> list[MemoryItem]:
    """Return what a forward and backward pass needs beside weights and gradients."""
    tokens = micro_batch_tokens(config, setting, prompt_tokens)
    chunk = min(config.training.logprob_chunk, tokens)
    several = micro_batches(config, setting, prompt_tokens) > 1
    return [
        _activations(config, size, setting, tokens),
        _logits(size, setting, chunk, chunks=-(-tokens // chunk), several=several),
    ]


def layer_bytes(blocks: Blocks, setting: Setting, *, adapters: bool = False) -> int:
    """Return the bytes that a token keeps of one layer for the backward pass."""
    # Two norms keep their input and its normalised form, in float32 or as stored, and the input of the next
    # linear layer; attention keeps queries, keys, values and its output; a gated MLP keeps gate, activated
    # gate, up projection and product.
    norms = 2 * blocks.hidden * (FLOAT + setting.stream + setting.compute)
    # Each adapter casts the shared input separately.
    hidden = 7 if adapters else 4
    return norms + setting.compute * (hidden * blocks.hidden + 4 * blocks.intermediate)


def selective_bytes(blocks: Blocks, setting: Setting) -> int:
    """Return the bytes that a token keeps of a layer with selective checkpointing, beside its input."""
    # Queries, the gate, and attention's output; its log-sum-exps are few.
    return setting.compute * (2 * blocks.hidden + blocks.intermediate)


def _activations(config: RunConfig, size: ModelSize, setting: Setting, tokens: int) -> MemoryItem:
    stacks = [(size.text, tokens, bool(size.adapters))]
    if not size.whole_vision():
        stacks.append((size.tower, tokens * PATCHES_PER_TOKEN, bool(size.adapters)))
    checkpointing = checkpoints_layers(config, setting)
    selective = config.policy.gradient_checkpointing == "selective"
    kept, passing = 0, 0
    for blocks, count, adapters in stacks:
        layer = count * layer_bytes(blocks, setting, adapters=adapters)
        inputs = count * setting.stream * blocks.hidden
        products = count * selective_bytes(blocks, setting) if selective else 0
        kept += blocks.layers * (inputs + products if checkpointing else layer)
        # Gradients of a layer's hidden states, and of the MLP's two factors.
        gradients = 2 * inputs + 2 * count * setting.compute * blocks.intermediate
        passing = max(passing, gradients + (layer if checkpointing else 0))
    how = "layer inputs and one layer" if checkpointing else "all layers"
    if selective:
        how = "layer inputs, half of the products, and one layer"
    return MemoryItem("activations", loss=kept, layers=kept + passing, how=f"{tokens:,} tokens, {how}")


def _logits(size: ModelSize, setting: Setting, chunk: int, *, chunks: int, several: bool) -> MemoryItem:
    """Return the logits of a chunk, and the head's gradient: a chunk's is added to the sum of others."""
    values, compute = chunk * size.vocabulary, setting.compute
    # Autocast casts the head for every chunk, and its gradient back.
    cast = HALF if setting.half and not setting.sharded and setting.weight == FLOAT else 0
    gradient = 0
    if size.trains_head:
        gradient = size.head * (setting.weight if cast else compute)
    before = gradient if chunks > 1 else 0
    forward = values * (compute + LOGIT_COPIES * FLOAT)
    backward = values * LOGIT_COPIES * FLOAT + before + cast * size.head
    product = values * compute + before + gradient + 2 * cast * size.head
    left = gradient if setting.sharded or not several else 0
    return MemoryItem(
        "logits of a chunk",
        loss=max(forward, backward, product),
        layers=left,
        how=f"{chunk:,} tokens × {size.vocabulary:,}, with the head's gradient",
    )
