"""The tiny policy that tests of every room may use; its imports wait until a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from data import ImageRef

if TYPE_CHECKING:
    from mm_cpgd.policy import Policy

# Tiny tensors: more threads than idle cores make every test many times slower. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised tiny Qwen2.5-VL; do not write into it."""
    from transformers.utils import logging

    from mm_cpgd.tiny.model import build_tiny

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
    """Make a reference to a picture of coloured noise."""

    def make(width: int, height: int, seed: int = 0) -> ImageRef:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return ImageRef(f"noise {width} x {height} #{seed}", lambda: Image.fromarray(pixels))

    return make
