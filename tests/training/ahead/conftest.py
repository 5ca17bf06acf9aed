"""Fixtures of the tests of work ahead: runs on an engine with weights of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mm_cpgd.training import run
from tests.fakes.overlap import CopyEngine, use_copy_engine


@pytest.fixture
def copy_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CopyEngine]]:
    """Let runs with ``AS_VLLM`` use a ``CopyEngine``; afterwards no thread of it may be left."""
    for name in ("before", "seconds", "deaf_after"):
        monkeypatch.setattr(CopyEngine, name, CopyEngine.__dict__[name])  # undone at the end
    monkeypatch.setattr(run, "build_engine", run.build_engine)
    use_copy_engine()
    yield CopyEngine
    names = [thread.name for thread in threading.enumerate()]
    assert [name for name in names if name.startswith(("ahead", "scores"))] == []
