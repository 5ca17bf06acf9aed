"""Section "growth": seconds and peak memory of the update with the group size and the completion length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.policies import build, encode, experience_of, installed, memory_limit_noted
from benchmarks.gpu.sections import Row
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.update import timed


def run(settings: Settings, scratch: Path) -> Iterator[Row]:
    """Yield a row for each group size, and one for each completion length."""
    lora = not installed("peft")
    policy = build(settings.shapes[0], settings, lora=lora)
    prompts = encode(policy, settings, settings.prompts)
    points = [(group, settings.completion_tokens) for group in settings.growth_completions]
    points += [(settings.completions, tokens) for tokens in settings.growth_tokens]
    for group, tokens in dict.fromkeys(points):
        row: Row = {"completions per prompt": group, "completion tokens": tokens}
        with memory_limit_noted(row):
            _, seconds, peak = timed(
                policy, experience_of(prompts, [[tokens] * group] * len(prompts)), settings
            )
            total = len(prompts) * group * tokens
            row |= {"seconds": seconds, "tokens/s": total / seconds, "peak GiB": peak / 1024}
        yield row
