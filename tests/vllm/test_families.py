"""vLLM's loader takes every family of the table that it knows, from files and as a run sends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.families.build import FAMILIES, absence
from benchmarks.families.matrix import failure
from benchmarks.families.subject import Subject

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loader_takes_what_the_table_says(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    if reason := absence(name):
        pytest.skip(reason)
    assert failure(Subject(name, tiny_folder, tmp_path), "vllm") is None
