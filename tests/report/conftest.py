"""A run folder with metrics and rollouts, for all tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_cpgd.tracking import MetricsLog, RolloutLog
from tests.fakes.rollouts import group, red_image, write_rollouts

CONFIG = "name: toy\nseed: 3\npolicy: {model: 'embedded:tiny'}\nalgorithm: {recipe: cpgd}\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    metrics.write(0, {"eval/accuracy": 0.25, "eval/n": 400})
    for iteration in range(1, 7):
        metrics.write(
            iteration, {"reward/mean": iteration / 7, "policy/drift": 0.001, "seconds/iteration": 2.0}
        )
    metrics.write(7, {"eval/accuracy": 0.75, "eval/n": 400})
    log = RolloutLog(tmp_path / "rollouts")
    for iteration in range(1, 7):
        write_rollouts(log, iteration, [group(2)], [[red_image()]])
    return tmp_path
