"""Config files, written when a test requests them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.configs import BASE, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str = "", name: str = "run.yaml", base: str = BASE) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(base + text, encoding="utf-8")
        return file

    return write_file
