"""Fixtures of all tests: the tiny policy, noise images, and small runs of a random policy.

The runs' completions differ in length; their reward costs nothing. Imports wait until a fixture is used.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from data import ImageRef

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy

# Tiny tensors: more threads than idle cores make every test many times slower. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
with contextlib.suppress(ImportError):  # the environment of tests/vllm has no Hypothesis
    from hypothesis import settings

    # An example that takes longer than usual shows that the machine is busy, and no error.
    settings.register_profile("without_clock", deadline=None)
    settings.load_profile("without_clock")


RULES = """\
from rewards import Status, Verdict

def vowels(completion, example):
    return sum(letter in "aeiou" for letter in completion) / max(len(completion), 1)

def many_vowels(completion, example):
    return float(vowels(completion, example) >= 0.2)

def picky(completion, example):
    return Verdict(None, Status.UNPARSABLE_GOLD) if len(completion) % 2 else vowels(completion, example)

def odd(completion, example):
    return float(len(completion) % 2)

def never(completion, example):
    return Verdict(None, Status.ERROR)
"""
CONFIG = """\
name: small
seed: 3
output: {folder}/run
policy: {{model: {model}, dtype: float32}}
data:
  train: {{path: "generated:shapes,clock", limit: 12, seed: 1}}
  eval: {{path: "generated:shapes,clock", limit: 4, seed: 2}}
rollout: {{prompts: 4, completions: 4, max_new_tokens: 8, batch_prompts: 2}}
rewards: [{{rule: "{folder}/rules.py:vowels"}}]
algorithm: {{recipe: cpgd}}
training:
  iterations: 3
  mini_batch_prompts: 2
  inner_epochs: 2
  micro_batch_tokens: 4096
  learning_rate: 1.0e-3
  threads: 1
checkpoint: {{every: 1}}
sft: {{steps: 3, batch: 4}}
"""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised tiny Qwen2.5-VL; do not write into it."""
    from transformers.utils import logging

    from mm_cpgd.tiny.build import build_tiny

    logging.disable_progress_bar()
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_policy(tiny_folder: Path) -> Policy:
    """The same, loaded; do not change it."""
    from mm_cpgd.config.schema import PolicyConfig
    from mm_cpgd.policy import load_policy

    return load_policy(PolicyConfig(model=str(tiny_folder)))


@pytest.fixture(scope="session")
def noise_image() -> Callable[..., ImageRef]:
    """Make a reference to an image of coloured noise."""

    def make(width: int, height: int, seed: int = 0) -> ImageRef:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return ImageRef(f"noise {width} x {height} #{seed}", lambda: Image.fromarray(pixels))

    return make


@pytest.fixture(scope="session")
def wordy_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policy with a hundred end tokens, so that random completions end after 1 to 8 tokens."""
    folder = tmp_path_factory.mktemp("wordy") / "policy"
    shutil.copytree(tiny_folder, folder)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    settings["eos_token_id"] = [settings["eos_token_id"], *range(100, 200)]
    file.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def make_yaml(wordy_folder: Path) -> Callable[[Path], Path]:
    """Write rules and config into a folder; the run folder will be ``run`` in it."""

    def make(folder: Path) -> Path:
        (folder / "rules.py").write_text(RULES)
        yaml = folder / "run.yaml"
        yaml.write_text(CONFIG.format(folder=folder, model=wordy_folder))
        return yaml

    return make


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are compared number for number, which a GPU does not guarantee."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    yield
    if "accelerate.state" in sys.modules:
        from tests.fakes.training_runs import reset_accelerate

        reset_accelerate()


@pytest.fixture
def yaml(tmp_path: Path, make_yaml: Callable[[Path], Path], on_cpu: None) -> Path:
    """Return a small run's config; its rules and its run folder ``run`` are beside it."""
    return make_yaml(tmp_path)


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Read the metrics of a run folder, except those that depend on the clock."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [
            {k: v for k, v in json.loads(line).items() if not k.startswith(("seconds/", "tokens/per"))}
            for line in lines
        ]

    return read


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Encode an image of one colour."""

    def encode(
        colour: Any = "red", size: tuple[int, int] = (8, 4), kind: str = "PNG", **options: Any
    ) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", size, colour).save(stream, kind, **options)
        return stream.getvalue()

    return encode


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[Iterable[Any]], Path]:
    """Write one row per line; a text is the line itself."""

    def write(rows: Iterable[Any]) -> Path:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), "utf-8")
        return file

    return write


@pytest.fixture
def layers_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not fuse small layers: for comparisons with what cannot be fused, to the last digits."""
    monkeypatch.setattr("mm_cpgd.policy.shared_prefix.forward.fused_layers", lambda *args: None)
