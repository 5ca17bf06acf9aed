"""Runs whose algorithm has a state or uses complete mini-batches: resumed, and on two processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.checkpoint.serialization import load_state
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
# An entropy that is always below its target, so that the coefficient grows with every step.
EVERYTHING = [
    "algorithm.regularizers=[{name: policy_drift}, {name: entropy_control, target: 99, step: 0.01}, "
    "{name: kl_cov, share: 0.1}]",
    "algorithm.token_weights=[{name: forking_tokens, share: 0.5}, {name: clip_cov, share: 0.2, low: 0.1}, "
    "{name: off_policy_mask, delta: 0.01}]",
    "algorithm.prompts={name: variance_aware}",
    "evaluation.after=false",
    "data.eval=null",
]


def memory(run: Path, iteration: int) -> dict[str, Any]:
    return load_state(run / "checkpoints" / f"step-{iteration}" / "run.safetensors")["shared"]


def test_a_resumed_run_restores_the_state_of_the_parts(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, [*EVERYTHING, f"output={tmp_path / 'one'}"])
    trainer_jobs.run(yaml, [*EVERYTHING, "training.iterations=1"])
    trainer_jobs.run(yaml, EVERYTHING, resume=True)
    rows = read_rows(tmp_path / "one")
    assert read_rows(tmp_path / "run") == rows
    # Half of the tokens, less the fifth that Clip-Cov draws from those in its band.
    assert all(0.2 < row["policy/token_weight"] < 0.7 for row in rows[-3:])
    kept = memory(tmp_path / "run", 3)
    # Three iterations of two mini-batches, twice each.
    (controller,) = kept["objective"].values()
    assert controller["coefficient"] == pytest.approx(0.12)
    assert (kept["sampler"]["scores"] > 0).sum() >= 4
    assert kept["sampler"]["draws"] == 3


def test_one_row_fills_a_batch_with_groups_of_their_own(yaml: Path, tmp_path: Path) -> None:
    settings = ("algorithm.recipe=one_shot", "data.train.limit=1", "training.iterations=1")
    trainer_jobs.run(yaml, [*settings, "rollout.prompts=4", "evaluation.after=false", "data.eval=null"])
    (file,) = sorted((tmp_path / "run" / "rollouts").glob("*.jsonl"))
    groups = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(groups) == 4
    assert len({group["id"] for group in groups}) == 1
    texts = [tuple(one["text"] for one in group["completions"]) for group in groups]
    assert len(set(texts)) == 4


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, [*EVERYTHING, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, EVERYTHING) == [0, 0]
    pairs = zip(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"), strict=True)
    for found, expected in pairs:
        # Ratios of 10 in float32: rounding alone is 1e-5.
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
