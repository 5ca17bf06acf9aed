"""Memory of a micro-batch: activations, logits of a chunk, and gradients on their way."""

from __future__ import annotations

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.model_size import Blocks, ModelSize
from mm_cpgd.preflight.setting import FLOAT, Setting
from mm_cpgd.training.setup import step_schedule

# Logits of a chunk exist once in the precision of the computation, and in float32 as log-probabilities,
# their copy or factor, their exponentials and their gradient.
LOGIT_COPIES = 4
# An image token of the Qwen family represents 2 x 2 patches.
PATCHES_PER_TOKEN = 4


def update_items(
    config: RunConfig, size: ModelSize, setting: Setting, prompt_tokens: int
) -> list[MemoryItem]:
    """Return what a forward and backward pass needs beside weights and gradients."""
    tokens = micro_batch_tokens(config, setting, prompt_tokens)
    checkpointing = config.policy.gradient_checkpointing or setting.strategy.checkpoint_layers
    activations = tokens * saved_bytes(size.text, setting, checkpointing, adapters=bool(size.adapters))
    if not size.whole_vision():
        activations += tokens * PATCHES_PER_TOKEN * saved_bytes(size.tower, setting, checkpointing)
    kept = "layer inputs and one layer" if checkpointing else "all layers"
    chunk = min(config.training.logprob_chunk, tokens)
    logits = chunk * size.vocabulary * (setting.compute + LOGIT_COPIES * FLOAT)
    return [
        MemoryItem("activations of a micro-batch", 0, activations, 0, f"{tokens:,} tokens, {kept}"),
        MemoryItem("logits of a chunk", 0, logits, 0, f"{chunk:,} tokens × {size.vocabulary:,}"),
        _head_gradient(size, setting, chunks=-(-tokens // chunk)),
    ]


def micro_batch_tokens(config: RunConfig, setting: Setting, prompt_tokens: int) -> int:
    """Return the tokens of a process's largest forward pass."""
    rollout = config.rollout
    row = prompt_tokens + rollout.max_new_tokens
    mini = min(step_schedule(config).mini_batch_prompts, rollout.prompts)
    prompts = -(-mini // setting.machines.processes)
    own = rollout.completions * rollout.max_new_tokens
    own += prompt_tokens if rollout.shared_prefix else rollout.completions * prompt_tokens
    # A row longer than the budget runs alone.
    return max(min(config.training.micro_batch_tokens, prompts * own), row)


def saved_bytes(blocks: Blocks, setting: Setting, checkpointing: bool, *, adapters: bool = False) -> int:
    """Return the bytes that a token keeps for the backward pass."""
    compute, stream = setting.compute, setting.stream
    # Two norms keep their input and its normalised form, in float32 or as stored, and the input of the next
    # linear layer; attention keeps queries, keys, values and its output; a gated MLP keeps gate, activated
    # gate, up projection and product.
    norms = 2 * blocks.hidden * (FLOAT + stream + compute)
    layer = norms + compute * (4 * blocks.hidden + 4 * blocks.intermediate)
    if adapters:
        layer += compute * 3 * blocks.hidden  # each adapter casts the shared input separately
    return blocks.layers * stream * blocks.hidden + layer if checkpointing else blocks.layers * layer


def _head_gradient(size: ModelSize, setting: Setting, chunks: int) -> MemoryItem:
    """Return the gradient of the head: the sum over chunks so far, and that of the present chunk."""
    if not size.trains_head:
        return MemoryItem("gradient of the head")
    count = min(2, chunks) * size.head * setting.compute
    return MemoryItem("gradient of the head", 0, count, 0, "its sum over chunks, and that of one chunk")
