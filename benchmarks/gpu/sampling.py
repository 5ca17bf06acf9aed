"""Section "sampling": tokens per second of the local engine, of transformers' generate and of vLLM."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.policies import autocast, build, device, encode, installed
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.measurement import Memory, seconds_of
from benchmarks.performance.models import write_model

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy

# Prompts and limit of the run before the timed one.
WARM_UP = 4


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield a row for each engine; all complete the same prompts with the same number of tokens."""
    policy = build(settings.shapes[0], settings, lora=False).eval()
    policy._unused_ids = set(policy.end_ids)
    prompts = encode(policy, settings, settings.prompts)
    with _ends(policy, []):
        yield _measured("local engine", _local(policy, prompts, settings), settings)
        yield _measured("transformers' generate", _generate(policy, prompts, settings), settings)
        unrecorded = _local(policy, prompts, settings, graph=False)
        yield _measured("local engine, without CUDA graph", unrecorded, settings)
        yield from _uneven(policy, prompts, settings)
        if missing := installed("vllm"):
            yield {"engine": "vLLM", "note": missing}
            return
        folder = write_model(scratch / settings.shapes[0], settings.shapes[0], settings.visual_tokens)
        yield _measured("vLLM", _vllm(folder, policy, prompts, settings), settings)


def _uneven(policy: Policy, prompts: Sequence[EncodedPrompt], settings: Settings) -> Iterator[Row]:
    """Yield rows of a quarter of the prompts at a time, whose completions have uneven lengths.

    Each token ends a completion with about the same probability, four times in as many tokens as the limit.
    """
    size = max(1, len(prompts) // 4)
    with _ends(policy, list(range(0, policy.head_rows, max(2, settings.completion_tokens // 4)))):
        refilled = _local(policy, prompts, settings, size)
        yield _measured("local engine, uneven lengths, places refilled", refilled, settings)
        batches = _local(policy, prompts, settings, size, at_once=size)
        yield _measured("local engine, uneven lengths, batch after batch", batches, settings)


@contextlib.contextmanager
def _ends(policy: Policy, tokens: list[int]) -> Iterator[None]:
    """Let these tokens end completions, and no others, within the ``with`` block."""
    kind, usual = type(policy), type(policy).end_ids
    kind.end_ids = property(lambda self: tokens)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        kind.end_ids = usual  # type: ignore[method-assign]


def _measured(name: str, sample: Callable[[int], int], settings: Settings) -> Row:
    """Return the row of an engine whose completions have the given number of tokens; it returns their sum."""
    memory = Memory()
    memory.loaded()
    with torch.no_grad(), autocast():
        sample(WARM_UP)
        sampled: list[int] = []
        seconds = seconds_of(lambda: sampled.append(sample(settings.completion_tokens)))
    memory.worked()
    return {
        "engine": name,
        "completions": settings.prompts * settings.completions,
        "tokens": sampled[0],
        "seconds": seconds,
        "tokens/s": sampled[0] / seconds,
        "peak GiB": memory.peak / 1024,
    }


def _seeds(settings: Settings) -> list[list[int]]:
    size = settings.completions
    return [list(range(prompt * size, (prompt + 1) * size)) for prompt in range(settings.prompts)]


def _local(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    settings: Settings,
    batch_prompts: int = 32,
    *,
    at_once: int | None = None,
    graph: bool | None = None,
) -> Callable[[int], int]:
    from mm_cpgd.rollout import LocalEngine

    return _with(LocalEngine(policy, batch_prompts, graph=graph), prompts, settings, at_once)


def _with(
    engine: Any, prompts: Sequence[EncodedPrompt], settings: Settings, at_once: int | None = None
) -> Callable[[int], int]:
    """Return the function that samples with an engine of this project's, ``at_once`` prompts in a call."""
    from mm_cpgd.rollout import Sampling

    def sample(tokens: int) -> int:
        for prompt in prompts:
            prompt.vision_features = None  # the vision tower is part of sampling, as it is of generate
        size, seeds = at_once or len(prompts), _seeds(settings)
        calls = [slice(start, start + size) for start in range(0, len(prompts), size)]
        found = [engine.generate(prompts[one], Sampling(tokens), seeds[one]) for one in calls]
        return sum(len(one.tokens) for groups in found for group in groups for one in group)

    return sample


def _generate(policy: Policy, prompts: Sequence[EncodedPrompt], settings: Settings) -> Callable[[int], int]:
    """Return transformers' generate on all prompts at once, each repeated for its completions."""
    from mm_cpgd.policy import collate_prompts

    rows = [prompt for prompt in prompts for _ in range(settings.completions)]
    batch = {name: value.to(device()) for name, value in collate_prompts(rows, policy.pad_id).items()}
    batch.pop("position_ids", None)  # generate computes them itself

    def sample(tokens: int) -> int:
        found = policy.model.generate(
            **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            min_new_tokens=tokens, max_new_tokens=tokens, use_cache=True,
        )  # fmt: skip
        return int(found[:, batch["input_ids"].shape[1] :].numel())

    return sample


def _vllm(
    folder: Path, policy: Policy, prompts: Sequence[EncodedPrompt], settings: Settings
) -> Callable[[int], int]:
    from mm_cpgd.rollout.vllm import VllmEngine
    from mm_cpgd.rollout.vllm.colocated import open_colocated

    longest = max(map(len, prompts)) + settings.completion_tokens
    backend = open_colocated(
        str(folder), max_model_len=longest, options={"dtype": "bfloat16", "gpu_memory_utilization": 0.5}
    )
    return _with(VllmEngine(policy, backend), prompts, settings)
