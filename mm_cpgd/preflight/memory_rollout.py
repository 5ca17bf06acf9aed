"""Memory of sampling: by the policy itself, by vLLM in the same process, or by servers."""

from __future__ import annotations

from mm_cpgd.algorithms.parts import make_part
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.policy.vision import MAX_PATCHES
from mm_cpgd.preflight.memory_item import MemoryItem
from mm_cpgd.preflight.memory_state import gathered_copy_bytes
from mm_cpgd.preflight.memory_update import PATCHES_PER_TOKEN
from mm_cpgd.preflight.model_size import Blocks, ModelSize
from mm_cpgd.preflight.setting import FLOAT, HALF, Setting
from mm_cpgd.rollout.decoding import CACHE_BLOCK
from mm_cpgd.rollout.sampler import MAX_FINISHED_SHARE, SLOTS, later_loads
from mm_cpgd.rollout.vllm.weights_folder import FILE_BYTES

DOUBLE = 8
DTYPES = {"float32": FLOAT, "float": FLOAT, "bfloat16": HALF, "float16": HALF, "half": HALF}


def engine_items(
    config: RunConfig, size: ModelSize, setting: Setting, prompt_tokens: int
) -> list[MemoryItem]:
    """Return the weights that are sampled from, and what sampling takes beside them."""
    largest = size.largest * setting.weight
    if config.rollout.engine == "local":
        sampling = _local_items(config, size, setting, prompt_tokens)
        if not setting.sharded:
            return sampling
        copy = gathered_copy_bytes(size, setting)
        # Of the last tensor, before anything is sampled: its value before the cast, and what gloo copies.
        last = (setting.sent_copies - 1 + (setting.compute != setting.weight)) * largest
        beside = max(0, last - sum(item.rollout for item in sampling))
        gathered = MemoryItem("gathered copy", copy + beside, how="to sample from, until the rollout ends")
        return [gathered, *sampling]
    items = [MemoryItem("weights for vLLM", _sent_bytes(config, size, setting), how="on their way to it")]
    if config.rollout.vllm.mode == "colocated":
        items.append(_colocated(config, setting))
    return items


def _sent_bytes(config: RunConfig, size: ModelSize, setting: Setting) -> int:
    """Return the bytes of weights on their way: the largest tensor, whole or merged, and a bucket of them."""
    vllm = config.rollout.vllm
    if size.adapters and vllm.mode == "colocated" and vllm.adapters == "adapter":
        return 0
    tensor = size.largest * setting.weight if setting.sharded or size.adapters else 0
    over_nccl = vllm.mode == "server" and vllm.weights == "nccl"
    return tensor + (min(FILE_BYTES, size.total * setting.weight) if over_nccl else 0)


def vllm_weight_bytes(config: RunConfig, size: ModelSize) -> int:
    """Return the bytes of the weights in each vLLM process."""
    wanted = str(config.rollout.vllm.options.get("dtype", "auto"))
    each = DTYPES.get(wanted.removeprefix("torch."), min(size.stored, HALF))
    return -(-size.total * each // _tensor_parallel(config))


def vllm_cache_bytes(config: RunConfig, size: ModelSize, prompt_tokens: int) -> int:
    """Return the bytes of keys and values of one longest completion with its prompt in each vLLM process."""
    tokens = prompt_tokens + config.rollout.most_tokens
    return -(-tokens * size.text.layers * 2 * size.text.keys * HALF // _tensor_parallel(config))


def _local_items(
    config: RunConfig, size: ModelSize, setting: Setting, prompt_tokens: int
) -> list[MemoryItem]:
    """Return what sampling by the policy itself needs beside the weights: for rollouts or for evaluation."""
    rollout = config.rollout
    share = -(-rollout.prompts // setting.machines.processes)
    cases = [
        ("rollout", batch, _prefixes(config, setting, batch, copies, share), copies, rollout.max_new_tokens)
        for batch, copies in engine_calls(config, share)
    ]
    evaluation = config.evaluation
    if config.data.eval and (evaluation.before or evaluation.after or evaluation.every):
        prompts = min(evaluation.batch_prompts, config.data.eval.limit or evaluation.batch_prompts)
        new = evaluation.max_new_tokens or rollout.max_new_tokens
        cases.append(("evaluation", prompts, prompts, 1, new))
    if rollout.environment:
        # From the second turn on each conversation has all that came before, beside the prompt or, without
        # shared prefixes, as a prefix of its own.
        prompt_tokens += rollout.most_tokens
        cases = [(name, prompts, prompts * n, n, new) for name, prompts, _, n, new in cases]
    found = [
        _sampling_items(size, setting, name, prompts, prefixes, copies, prompt_tokens, new)
        for name, prompts, prefixes, copies, new in cases
    ]
    return max(found, key=lambda items: sum(item.rollout for item in items))


def engine_calls(config: RunConfig, share: int) -> list[tuple[int, int]]:
    """Return prompts, and completions of each, of the calls of the engine that may be largest.

    A budget part may give one prompt what the others leave; prompts with equally many completions are sampled
    together.
    """
    rollout = config.rollout
    even = min(rollout.batch_prompts, share), rollout.completions
    if config.algorithm.budget is None:
        return [even]
    most = most_completions(config)
    together = max(1, rollout.prompts * rollout.completions // most)
    return [even, (min(rollout.batch_prompts, share, together), most)]


def most_completions(config: RunConfig) -> int:
    """Return how many completions a prompt has at most."""
    rollout, budget = config.rollout, config.algorithm.budget
    if budget is None:
        return rollout.completions
    options = make_part("budget", budget.name, budget.options).options
    left = rollout.prompts * (rollout.completions - 1) + 1  # each of the others has at least one
    return min(left, max(int(options.get("high", left)), rollout.completions))


def _prefixes(config: RunConfig, setting: Setting, batch: int, copies: int, share: int) -> int:
    """Return how many prefixes the cache holds, of ``share`` prompts sampled ``batch`` at a time."""
    if not config.rollout.shared_prefix:
        return batch * copies
    return min(share, SLOTS * batch) if setting.machines.on_gpu else batch


def _sampling_items(
    size: ModelSize,
    setting: Setting,
    name: str,
    prompts: int,
    prefixes: int,
    completions: int,
    prompt_tokens: int,
    new: int,
) -> list[MemoryItem]:
    """Return what decoding a batch of prompts needs, of ``new`` tokens for each of their completions."""
    rows = prompts * completions
    token = size.text.layers * 2 * size.text.keys * setting.compute
    own = rows * -(-new // CACHE_BLOCK) * CACHE_BLOCK * token
    # When completions end, the others' keys, or values, are copied before the old ones are freed.
    moved = int(own / 2 * (1 - MAX_FINISHED_SHARE))
    # Logits, as computed and in float32; probabilities in float32 and their running sum in float64.
    logits = rows * size.vocabulary * (setting.compute + 2 * FLOAT + DOUBLE)
    scores = rows * size.text.heads * (prompt_tokens + new) * (2 * setting.compute + 2 * FLOAT)
    prefill = _prefill_bytes(size, setting, prompts, prompt_tokens)
    later = _prefill_bytes(size, setting, later_loads(prompts), prompt_tokens) if prefixes > prompts else 0
    decoding = max(later, moved, logits, scores + rows * size.vocabulary * setting.compute)
    return [
        MemoryItem(
            f"{name}: KV cache",
            prefixes * prompt_tokens * token + own,
            how=f"{prefixes} × {prompt_tokens:,} + {rows} × {new:,} tokens",
        ),
        # Never two at once: the first prompts are prefilled before the completions have a cache.
        MemoryItem(
            f"{name}: prefill or sampling",
            max(prefill - own, decoding),
            how=f"{prompts} prompts, {rows} completions",
        ),
    ]


def _prefill_bytes(size: ModelSize, setting: Setting, prompts: int, prompt_tokens: int) -> int:
    patches = prompts * prompt_tokens * PATCHES_PER_TOKEN
    if size.whole_vision():  # its images are encoded in batches, before the prompts are
        patches = min(patches, max(MAX_PATCHES, prompt_tokens * PATCHES_PER_TOKEN))
    text = prompts * prompt_tokens * _transient_bytes(size.text, setting)
    return max(text, patches * _transient_bytes(size.tower, setting))


def _transient_bytes(blocks: Blocks, setting: Setting) -> int:
    """Return the bytes per token at the widest point of a layer when nothing is kept."""
    return setting.compute * (4 * blocks.hidden + 3 * blocks.intermediate)


def _colocated(config: RunConfig, setting: Setting) -> MemoryItem:
    chosen = config.rollout.vllm
    share = int(chosen.memory_share * (setting.machines.gpu_memory or 0))
    # What is sampled ahead is sampled during updates.
    stays = share if not chosen.sleep or config.rollout.ahead else 0
    how = f"{chosen.memory_share:.0%} of the GPU" + ("" if stays else ", released during updates")
    return MemoryItem("vLLM", share, stays, stays, stays, how)


def _tensor_parallel(config: RunConfig) -> int:
    return config.rollout.vllm.tensor_parallel if config.rollout.vllm.mode == "colocated" else 1
