"""Comparison of whole iterations: one side that fails does not hide the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import iteration
from benchmarks.gpu.settings import CPU

OURS = {"seconds": [2.0, 2.0], "phases": {"rollout": [1.5, 1.5], "update": [0.5, 0.5]}, "peak": 1024.0}
TRL = {"seconds": [6.0, 6.0], "phases": {"rollout": [3.0, 3.0], "update": [3.0, 3.0]}, "peak": 4096.0}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what takes time: no model is written, and all packages but vLLM are there."""
    monkeypatch.setattr(iteration, "write_model", lambda folder, *_: folder)
    monkeypatch.setattr(iteration, "prepare", lambda *_: None)
    missing = {("vllm",): "not installed: vllm"}
    monkeypatch.setattr(iteration, "installed", lambda *names: missing.get(names, ""))


@pytest.mark.usefixtures("alone")
def test_ratios_are_how_much_faster_and_smaller_this_project_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration, "run_side", lambda module, *_: TRL if "trl" in module else OURS)
    ours, trl, ratio, vllm = iteration.run(CPU, tmp_path)
    assert (ours["side"], trl["side"]) == ("mm-cpgd", "TRL")
    assert ratio == {
        "engine": "local", "side": "ratio", "seconds": 3.0, "rollout, s": 2.0, "update, s": 6.0,
        "peak GiB": 0.25,
    }  # fmt: skip
    assert vllm == {"engine": "vllm", "note": "not installed: vllm"}


@pytest.mark.usefixtures("alone")
def test_a_side_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_side(module: str, *_: Any) -> dict[str, Any]:
        if "trl" in module:
            raise SystemExit("side_trl failed:\nTraceback\nOutOfMemoryError: no memory")
        return OURS

    monkeypatch.setattr(iteration, "run_side", run_side)
    ours, trl, _ = iteration.run(replace(CPU, rounds=1), tmp_path)
    assert ours["seconds"] == 2.0
    assert trl["note"] == "failed: OutOfMemoryError: no memory"
