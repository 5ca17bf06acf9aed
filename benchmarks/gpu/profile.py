"""Section "profile": what the device does during an update and during sampling, by kind of kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.policies import Update, autocast, build, device, encode, experience_of, installed
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.measurement import seconds_of

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy

# By the first that matches the name of a kernel, on a CPU of an operation.
KINDS = {
    "softmax over the vocabulary": r"_values_kernel|_gradient_kernel|log_?softmax",
    "attention": r"flash|fmha|sdpa|scaled_dot_product|packed_attention",
    "matrix products": r"nvjet|gemm|gemv|cutlass|cublas|aten::(b?mm|addmm|addmm_|linear)$",
    "fused elementwise": r"^triton_|CompiledFxGraph",
    "copies between host and device": r"memcpy.*(HtoD|DtoH)",
    "elementwise, casts, reductions": r"",
}
IDLE = "idle: waiting for the host"


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield milliseconds and number of kernels for each kind, of an update and of sampling."""
    for name, compiled in (("update, layers not compiled", False), ("update", True)):
        policy = build(settings.shapes[0], settings, lora=not installed("peft"), compiled=compiled)
        prompts = encode(policy, settings, settings.prompts)
        lengths = [[settings.completion_tokens] * settings.completions] * settings.prompts
        yield from _measured(
            name, Update(policy, experience_of(prompts, lengths), settings.micro_batch_tokens)
        )
    yield from _measured(
        f"sampling of {settings.profiled_tokens} tokens", _sampling(policy, prompts, settings)
    )


def _sampling(policy: Policy, prompts: Sequence[EncodedPrompt], settings: Settings) -> Callable[[], None]:
    """Return a work that samples completions of so many tokens, the vision tower included."""
    from mm_cpgd.rollout import LocalEngine, Sampling

    engine = LocalEngine(policy.eval())
    policy._unused_ids = set(policy.end_ids)
    size = settings.completions
    seeds = [list(range(start * size, (start + 1) * size)) for start in range(settings.prompts)]

    def work() -> None:
        for prompt in prompts:
            prompt.vision_features = None
        with autocast():
            engine.generate(prompts, Sampling(settings.profiled_tokens), seeds)

    return work


def _measured(name: str, work: Callable[[], None]) -> Iterator[Row]:
    """Yield the rows of a work that is done twice before, and once without the profiler for its seconds."""
    work()
    work()
    whole = 1000 * seconds_of(work)
    cuda = device() == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as found:
        seconds_of(work)
    spent = dict.fromkeys(KINDS, 0.0)
    counts = dict.fromkeys(KINDS, 0)
    for event in found.key_averages():
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        if time > 0:
            kind = kind_of(event.key)
            spent[kind] += time / 1000
            counts[kind] += event.count
    for kind in KINDS:
        if counts[kind]:
            yield {"work": name, "what": kind, "ms": spent[kind], "kernels": counts[kind]}
    yield {"work": name, "what": IDLE, "ms": max(0.0, whole - sum(spent.values()))}
    yield {"work": name, "what": "all", "ms": whole, "kernels": sum(counts.values())}


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE))
