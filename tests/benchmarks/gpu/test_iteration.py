"""Comparison of whole iterations: one side that fails does not hide the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.gpu import iteration
from benchmarks.gpu.settings import CPU

OURS = {"seconds": [2.0, 2.0], "phases": {"rollout": [1.5, 1.5], "update": [0.5, 0.5]}, "peak": 1024.0}
TRL = {"seconds": [6.0, 6.0], "phases": {"rollout": [3.0, 3.0], "update": [3.0, 3.0]}, "peak": 4096.0}


class FakeSide:
    """A side that reports at once; ``events`` records when sides start and report."""

    events: ClassVar[list[str]] = []

    def __init__(self, module: str, *_: Any, waits: bool = False) -> None:
        self.module = module
        self.events.append(f"start {module.rpartition('_')[2]}{', waits' if waits else ''}")

    def report(self) -> dict[str, Any]:
        self.events.append(f"report {self.module.rpartition('_')[2]}")
        return TRL if "trl" in self.module else OURS


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what takes time: no model is written, and all packages but vLLM are there."""
    monkeypatch.setattr(iteration, "write_model", lambda folder, *_: folder)
    monkeypatch.setattr(iteration, "prepare", lambda *_: None)
    FakeSide.events.clear()
    missing = {("vllm",): "not installed: vllm"}
    monkeypatch.setattr(iteration, "installed", lambda *names: missing.get(names, ""))


@pytest.mark.usefixtures("alone")
def test_ratios_are_how_much_faster_and_smaller_this_project_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration, "Side", FakeSide)
    ours, trl, ratio, vllm = iteration.run(CPU, tmp_path)
    assert (ours["side"], trl["side"]) == ("mm-cpgd", "TRL")
    assert ratio == {
        "engine": "local", "side": "ratio", "seconds": 3.0, "rollout, s": 2.0, "update, s": 6.0,
        "peak GiB": 0.25,
    }  # fmt: skip
    assert vllm == {"engine": "vllm", "note": "not installed: vllm"}


@pytest.mark.usefixtures("alone")
def test_a_side_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeSide):
        def report(self) -> dict[str, Any]:
            if "trl" in self.module:
                raise SystemExit("side_trl failed:\nTraceback\nOutOfMemoryError: no memory")
            return OURS

    monkeypatch.setattr(iteration, "Side", Failing)
    ours, trl, _ = iteration.run(replace(CPU, rounds=1), tmp_path)
    assert ours["seconds"] == 2.0
    assert trl["note"] == "failed: OutOfMemoryError: no memory"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("device", "events"),
    [
        ("cpu", ["start ours", "report ours", "start trl", "report trl"]),
        ("cuda", ["start ours, waits", "start trl, waits", "report ours", "report trl"]),
    ],
)
def test_sides_work_one_after_the_other_and_load_together_on_a_gpu(
    device: str, events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iteration, "Side", FakeSide)
    monkeypatch.setattr(iteration, "device", lambda: device)
    list(iteration.run(CPU, tmp_path))
    assert FakeSide.events == events
