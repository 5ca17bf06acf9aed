"""Small runs of every recipe: how they are set up, and how far two of them are apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mm_cpgd.checkpoint.serialization import load_state

ITERATIONS = 2
# Of a mini-batch's three prompts, two processes have two and one. Of eight rows, the second batch draws at
# least four again, so that memories by row are read.
SETTINGS = (
    "rollout.prompts=6",
    "rollout.batch_prompts=6",
    "data.train.limit=8",
    "data.eval=null",
    "training.mini_batch_prompts=3",
    "training.inner_epochs=1",
    "training.learning_rate=1e-4",
    f"training.iterations={ITERATIONS}",
    "tracking.visual_kl_every=0",
    "distributed.timeout=300",
)
# By the clock, and the same in no two runs.
TIMED = ("seconds/", "tokens/per")


def settings(recipe: str, rules: Path, output: Path) -> list[str]:
    """Return the overrides of a run of a recipe; its two rules run without processes of their own."""
    rewards = [{"rule": f"{rules}:many_vowels", "timeout": None}]
    rewards += [{"rule": f"{rules}:vowels", "timeout": None, "weight": 0.5}]
    return [*SETTINGS, f"algorithm.recipe={recipe}", f"rewards={json.dumps(rewards)}", f"output={output}"]


def rows(run: Path) -> list[dict[str, Any]]:
    """Return a run's metrics, without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [{name: row[name] for name in row if not name.startswith(TIMED)} for row in found]


def memory(run: Path) -> dict[str, Any]:
    """Return what sampler and parts remember at the end of a run."""
    file = run / "checkpoints" / f"step-{ITERATIONS}" / "run.safetensors"
    shared = load_state(file)["shared"]
    return {name: shared[name] for name in ("sampler", "objective")}


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return a run's weights at its end, by name."""
    found: dict[str, torch.Tensor] = load_file(run / "final" / "model.safetensors")
    return found


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield everything in nested mappings, sequences, arrays and tensors, with its place."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        for name in value:
            yield from numbers(value[name], f"{place}/{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, one in enumerate(value):
            yield from numbers(one, f"{place}/{number}")
    else:
        yield place, value


def differences(found: Any, expected: Any, tolerance: float = 0.0) -> list[str]:
    """Return where two nested values differ by more than a tolerance, relative to the larger, or absolute."""
    left, right = dict(numbers(found)), dict(numbers(expected))
    lines = [f"{name}: only in one" for name in sorted(left.keys() ^ right.keys())]
    for name in sorted(left.keys() & right.keys()):
        one, other = left[name], right[name]
        if isinstance(one, int | float) and isinstance(other, int | float):
            near = abs(one - other) <= tolerance * max(1.0, abs(one), abs(other))
            equal = one == other or near or (math.isnan(one) and math.isnan(other))
        else:
            equal = one == other
        if not equal:
            lines.append(f"{name}: {one!r} is not {other!r}")
    return lines


def distance(found: Path, expected: Path) -> float:
    """Return the sum of absolute differences of two runs' weights."""
    one, other = weights(found), weights(expected)
    assert one.keys() == other.keys()
    return sum(float((one[name] - other[name]).abs().sum()) for name in other)


def share_apart(found: Path, expected: Path, start: Path) -> float:
    """Return the distance of two runs' weights as a share of how far one has gone from a policy's folder."""
    first, last = load_file(start / "model.safetensors"), weights(expected)
    gone = sum(float((first[name].float() - last[name].float()).abs().sum()) for name in last)
    return distance(found, expected) / gone
