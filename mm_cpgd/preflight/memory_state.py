"""Memory of weights, gradients, optimizer state and reference policy: whole, or in shards (FSDP2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.memory_item import MemoryItem, always
from mm_cpgd.preflight.micro_batch import checkpoints_layers, micro_batches
from mm_cpgd.preflight.model_size import ROOT, ModelSize, Weight
from mm_cpgd.preflight.setting import FLOAT, HALF, Setting
from mm_cpgd.training.optimizer.compact import CHUNK

ADAM_MOMENTS = 2
# Layers whose gathered weights exist at a time: the one that computes, and the next one on its way.
GATHERED_LAYERS = 2
# AdamW's temporary values of a tensor, where it goes from tensor to tensor: a root, and the denominator.
TENSOR_VALUES = 2
# Those of ``CompactAdamW``, for each value that it updates at a time: weights, gradient, both moments, their
# denominator and root, and the noise of rounding; and tensors whose offloaded moments are on the GPU.
CHUNK_VALUES = 7
FETCHED_TENSORS = 2
# Bytes of a weight in 4 bits: with a scale of one byte for 64 weights.
PACKED = 1 / 2 + 1 / 64


def state_items(
    config: RunConfig, size: ModelSize, setting: Setting, prompt_tokens: int, *, reference: bool
) -> list[MemoryItem]:
    """Return what stays on the GPU from the first step to the last, and what its layout adds for a while."""
    items = [_weights(size, setting)]
    if setting.sharded:
        items += [_gathered(size, setting), _undivided_gradients(size, setting)]
    else:
        items += _whole_items(config, size, setting)
    if not setting.offloaded:
        several = micro_batches(config, setting, prompt_tokens) > 1
        items.append(_gradients(size, setting, several=several))
        if not setting.moments_offloaded:
            how = f"AdamW: two moments{_divided(setting)}"
            items.append(always("optimizer state", moment_bytes(size, setting), how))
    items.append(_last_values(size, setting))
    if reference and not size.adapters:
        items.append(_reference(size, setting))
    return items


def shard_bytes(size: ModelSize, setting: Setting) -> int:
    """Return the bytes of this process's weights without a frozen vision tower, which is never divided."""
    return _sum(_divisible(size), lambda one: _held_bytes(one, setting))


def gradient_bytes(size: ModelSize, setting: Setting) -> int:
    """Return the bytes of this process's gradients."""
    trained = (one for one in size.weights if one.trained)
    return _sum(trained, lambda one: one.part(setting.parts) * _bytes(one, setting))


def moment_bytes(size: ModelSize, setting: Setting) -> int:
    """Return the bytes of this process's part of AdamW's moments."""
    if setting.moment is None:  # in the format of the weights
        return ADAM_MOMENTS * gradient_bytes(size, setting)
    values = sum(one.part(setting.parts) for one in size.weights if one.trained)
    return int(ADAM_MOMENTS * setting.moment * values)


def reference_shard_bytes(size: ModelSize, setting: Setting) -> int:
    """Return the bytes of this process's part of a reference policy, without its vision tower."""
    others = (one for one in size.weights if not one.vision)
    return _sum(others, lambda one: one.part(setting.parts) * setting.weight)


def gathered_copy_bytes(size: ModelSize, setting: Setting) -> int:
    """Return the bytes of the whole weights that a process samples from, where its own are shards."""
    return _sum(_divisible(size), lambda one: one.count * _gathered_bytes(one, setting))


def _weights(size: ModelSize, setting: Setting) -> MemoryItem:
    each = f"{setting.weight} bytes each" + (", adapters 4" if size.adapters else "")
    if any(one.packed for one in size.weights):
        each += ", quantized ones half a byte"
    whole = size.vision * setting.weight if size.whole_vision() else 0
    if not setting.sharded:
        return always("weights", shard_bytes(size, setting) + whole, each)
    if setting.offloaded:
        return always("weights", whole, "the frozen vision tower; shards are in CPU memory")
    tower = "; the frozen vision tower is whole" if whole else ""
    return always("weights", shard_bytes(size, setting) + whole, f"{each}{_divided(setting)}{tower}")


def _gathered(size: ModelSize, setting: Setting) -> MemoryItem:
    """Return the weights that are gathered for the forward and backward pass."""
    units = _units(_divisible(size), lambda one: one.count * _gathered_bytes(one, setting))
    root, name = units.pop(ROOT, 0), "gathered weights"
    if not setting.strategy.reshard_after_forward:
        every = root + sum(units.values())
        return MemoryItem(name, loss=every, layers=every, how="all, until their backward pass")
    layers = GATHERED_LAYERS * max(units.values(), default=0)
    how = f"embeddings, head, two layers; {setting.compute} bytes each"
    return MemoryItem(name, loss=root, layers=root + layers, how=how)


def _gradients(size: ModelSize, setting: Setting, *, several: bool) -> MemoryItem:
    """Return the gradients; with one micro-batch they grow as activations vanish, and never add to them."""
    count = gradient_bytes(size, setting)
    before = count if several else 0
    how = f"{_gradient(size, setting)} bytes per trained parameter{_divided(setting)}"
    return MemoryItem("gradients", loss=before, layers=before, step=count, how=how)


def _undivided_gradients(size: ModelSize, setting: Setting) -> MemoryItem:
    """Return a layer's gradients before they are summed over processes."""
    units = _undivided(size, setting)
    units.pop(ROOT, 0)
    return MemoryItem(
        "gradients of a layer", layers=max(units.values(), default=0), how="before processes sum them"
    )


def _undivided(size: ModelSize, setting: Setting) -> Counter[str]:
    """Return the bytes of each unit's gradients, as computed and in the format of their sum."""

    def both(one: Weight) -> int:
        own = _gathered_bytes(one, setting)
        return one.count * (own + setting.sent_copies * (FLOAT if setting.half else own))

    return _units((one for one in _divisible(size) if one.trained), both)


def _whole_items(config: RunConfig, size: ModelSize, setting: Setting) -> list[MemoryItem]:
    """Return what only processes with whole weights have."""
    casts: Counter[str] = Counter()
    if setting.half and _gradient(size, setting) == FLOAT:
        casts = _units((one for one in size.weights if one.trained), lambda one: HALF * one.count)
    every = sum(casts.values())
    layer = max((count for unit, count in casts.items() if unit != ROOT), default=0)
    layers = layer if checkpoints_layers(config, setting) else every
    buckets = gradient_bytes(size, setting) if setting.machines.processes > 1 else 0
    how = "mixed precision casts trained weights"
    return [
        MemoryItem("bf16 copies of weights", every, every, layers, how=how),
        always("buckets of gradients", buckets, "DDP sums them over processes"),
    ]


def _last_values(size: ModelSize, setting: Setting) -> MemoryItem:
    """Return what exists when activations are gone: the last gradients' sum, and later AdamW's own values."""
    trained = [one.part(setting.parts) * _bytes(one, setting) for one in size.weights if one.trained]
    tensor = TENSOR_VALUES * max(trained, default=0)
    name, how = "last values", "AdamW's, of one tensor"
    if setting.sharded:
        last = max(0 if setting.offloaded else tensor, _undivided(size, setting)[ROOT])
        return MemoryItem(name, step=last, how="gradients of embeddings and head before their sum")
    if setting.moment is not None:
        values = max((one.count for one in size.weights if one.trained), default=0)
        step = CHUNK_VALUES * FLOAT * min(values, CHUNK)
        if setting.moments_offloaded:
            step += FETCHED_TENSORS * int(ADAM_MOMENTS * setting.moment * values)
        return MemoryItem(name, step=step, how="AdamW's, of a part of a tensor")
    if setting.machines.on_gpu:
        return MemoryItem(name, how="the fused AdamW has none")
    return MemoryItem(name, step=tensor, how=how)


def _reference(size: ModelSize, setting: Setting) -> MemoryItem:
    tower = size.vision * setting.weight
    if setting.offloaded:
        return always("reference policy", tower, "its vision tower; shards are in CPU memory")
    how = f"a frozen copy{_divided(setting)}"
    return always("reference policy", reference_shard_bytes(size, setting) + tower, how)


def _divisible(size: ModelSize) -> list[Weight]:
    """Return the weights that sharding divides."""
    whole = size.whole_vision()
    return [one for one in size.weights if not (whole and one.vision)]


def _held_bytes(one: Weight, setting: Setting) -> int:
    """Return the bytes of this process's part of a weight; quantized ones are never divided."""
    if one.packed:
        return int(one.count * PACKED)
    return one.part(setting.parts) * _bytes(one, setting)


def _bytes(one: Weight, setting: Setting) -> int:
    # peft keeps adapters in float32 even if the weights that they adapt are bfloat16.
    return FLOAT if one.adapter else setting.weight


def _gathered_bytes(one: Weight, setting: Setting) -> int:
    return HALF if setting.half else _bytes(one, setting)


def _gradient(size: ModelSize, setting: Setting) -> int:
    return FLOAT if size.adapters else setting.weight


def _sum(weights: Iterable[Weight], count: Callable[[Weight], int]) -> int:
    return sum(count(one) for one in weights)


def _units(weights: Iterable[Weight], count: Callable[[Weight], int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in weights:
        found[one.unit] += count(one)
    return found


def _divided(setting: Setting) -> str:
    return f", divided among {setting.parts} processes" if setting.sharded else ""
