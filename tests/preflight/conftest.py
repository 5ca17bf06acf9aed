"""Config of a small run, and a model of round numbers, for all tests of the dry run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.model_size import Blocks, ModelSize, Weight

BASE = [
    "data.train.path=generated:clock",
    "data.train.limit=6",
    "data.eval=null",
    "rollout.prompts=4",
    "rollout.completions=2",
    "rollout.batch_prompts=4",
    "rollout.max_new_tokens=5",
    "training.micro_batch_tokens=30",
    "training.mixed_precision=no",
]


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., RunConfig]:
    """Make the config of a small run whose results would go to the test's folder."""

    def make(model: Path | str, *overrides: str) -> RunConfig:
        file = tmp_path / "run.yaml"
        file.write_text(f"policy: {{model: {model}}}\noutput: {tmp_path}/out\nalgorithm: {{recipe: cpgd}}\n")
        file.write_text(file.read_text() + "data: {train: {path: x}}\n")
        return load_config(file, [*BASE, *overrides])

    return make


@pytest.fixture
def toy() -> ModelSize:
    """1,240 weights: embeddings and head of 400, three layers of 80, a frozen vision tower of 200."""
    layers = [Weight((10, 8), f"layer {number}") for number in range(3)]
    tower = Weight((25, 8), "block 0", vision=True, trained=False)
    weights = (Weight((50, 8)), *layers, Weight((50, 8)), tower)
    return ModelSize("Toy", weights, 2, 50, 400, Blocks(3, 8, 16, 4, 2), Blocks(1, 4, 8, 4, 2))
