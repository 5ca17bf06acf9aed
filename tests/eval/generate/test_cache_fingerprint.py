"""Fingerprints of model folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eval.generate import cache as weights
from eval.generate.cache import folder_fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "same"),
    [
        ("model.safetensors", b"\x01" * 256, False),
        ("config.json", b"[]", False),
        ("chat_template.jinja", b"", False),
        ("README.md", b"read me", True),
        ("model.safetensors", bytes(range(256)), True),
    ],
)
def test_everything_that_affects_output_changes_the_fingerprint(
    model: Path, name: str, content: bytes, same: bool
) -> None:
    before = folder_fingerprint(model)
    (model / name).write_bytes(content)
    assert (folder_fingerprint(model) == before) is same


def test_small_files_are_identified_by_their_content(model: Path) -> None:
    before = folder_fingerprint(model)
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert folder_fingerprint(model) == before


def test_large_files_are_identified_by_size_time_and_head(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_WHOLE", 100)
    monkeypatch.setattr(weights, "_HEAD", 10)
    file = model / "model.safetensors"
    os.utime(file, ns=(1, 1))
    seen = {folder_fingerprint(model)}
    for content, time in ((bytes(range(255)), 1), (b"\x01" * 256, 1), (b"\x01" * 256, 2)):
        file.write_bytes(content)
        os.utime(file, ns=(time, time))
        seen.add(folder_fingerprint(model))
    assert len(seen) == 4
