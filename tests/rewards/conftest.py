"""Fixtures of the tests of reward rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewards import list_rules
from rewards import registry as registry_module


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers; the built-in rules, loaded at the first lookup, stay."""
    list_rules()
    monkeypatch.setattr(registry_module, "_rules", dict(registry_module._rules))


@pytest.fixture
def rule_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(
        "def brevity(completion, example, longest=10, *, scale):\n"
        "    return scale if len(completion) <= longest else 0\n"
        "def broken(completion, example):\n"
        "    raise KeyError('colour')\n"
        "def text(completion, example):\n"
        "    return 'good'\n"
        "def alone(completion):\n"
        "    return 1\n"
    )
    return file
