"""Section "update": seconds, share of the card's measured matrix products, and peak memory of a step."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.device import matmul_rate
from benchmarks.gpu.flops import head_size, update_flops
from benchmarks.gpu.policies import (
    Update,
    build,
    device,
    encode,
    experience_of,
    installed,
    memory_limit_noted,
)
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.performance.measurement import Memory, seconds_of

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy


@dataclass(frozen=True)
class Case:
    """One update: the model, what of it is trained, and how."""

    shape: str
    lora: bool
    shared: bool = True
    checkpointing: bool | str = True
    compiled: bool = True
    kernel: str | None = None
    tokens: int | None = None  # in place of the settings' micro_batch_tokens

    @property
    def names(self) -> Row:
        """The columns that say what was measured."""
        prefix = (self.kernel or "default") if self.shared else "no"
        return {
            "model": self.shape,
            "trained": "adapters" if self.lora else "all",
            "shared prefix": prefix,
            "checkpointing": {True: "full", False: "no"}.get(self.checkpointing, self.checkpointing),
            "compiled": "yes" if self.compiled else "no",
            **({"micro-batch": self.tokens} if self.tokens else {}),
        }


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield the cases that matter most first."""
    rate = matmul_rate()
    for case in itertools.islice(cases(settings), settings.update_cases):
        yield measured(case, settings, rate)


def cases(settings: Settings) -> Iterator[Case]:
    """Yield what is measured; kernels are compared with plain products when they are asked for."""
    first, lora = settings.shapes[0], not installed("peft")
    kept = Case(first, lora, checkpointing=False)
    yield from (kept, replace(kept, checkpointing="selective"), replace(kept, checkpointing=True))
    yield replace(kept, tokens=settings.micro_batch_tokens // 2)
    plain = replace(kept, compiled=False)
    yield from (replace(plain, checkpointing="selective"), replace(plain, checkpointing=True))
    yield replace(plain, checkpointing=True, shared=False)
    yield Case(first, lora=False)
    yield from (replace(kept, shape=shape, checkpointing="selective") for shape in settings.shapes[1:])
    yield from (replace(plain, checkpointing=True, kernel=name) for name in kernels(first))


def kernels(shape: str) -> Iterator[str]:
    """Yield the attention kernels that work here for this model."""
    from benchmarks.performance.models import config_of
    from mm_cpgd.policy.shared_prefix.choice import working

    dtype = torch.bfloat16 if device() == "cuda" else torch.float32
    return working(device(), dtype, head_size(config_of(shape).get_text_config()))


def measured(case: Case, settings: Settings, rate: float) -> Row:
    """Return one case's row; without peft, adapters are a note."""
    row = case.names
    if case.lora and (missing := installed("peft")):
        return row | {"note": missing}
    with memory_limit_noted(row):
        row |= _numbers(case, settings, rate)
    return row


def _numbers(case: Case, settings: Settings, rate: float) -> Row:
    from mm_cpgd.policy.shared_prefix.choice import forced

    policy = build(
        case.shape, settings, lora=case.lora, checkpointing=case.checkpointing, compiled=case.compiled
    )
    policy.shared_prefix = case.shared
    prompts = encode(policy, settings, settings.prompts)
    lengths = [[settings.completion_tokens] * settings.completions] * settings.prompts
    settings = replace(settings, micro_batch_tokens=case.tokens or settings.micro_batch_tokens)
    with forced(case.kernel):
        first, seconds, peak = timed(policy, experience_of(prompts, lengths), settings)
    text = policy.model.config.get_text_config()
    sizes = [len(prompt) for prompt in prompts]
    flops = update_flops(text, sizes, lengths, trained=not case.lora, shared=case.shared)
    return {
        "first, s": first,
        "seconds": seconds,
        "TFLOP/s": flops / seconds / 1e12,
        "share of matmul rate": flops / seconds / rate,
        "peak GiB": peak / 1024,
    }


def timed(policy: Policy, experience: object, settings: Settings) -> tuple[float, float, float]:
    """Return seconds of the first optimizer step, their median after it, and the peak memory in MiB."""
    memory = Memory()
    memory.loaded()
    update = Update(policy, experience, settings.micro_batch_tokens)  # type: ignore[arg-type]
    first = seconds_of(update)
    seconds = statistics.median(seconds_of(update) for _ in range(settings.rounds))
    memory.worked()
    return first, seconds, memory.peak
