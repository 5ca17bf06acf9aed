"""Runs whose parts use the extension points: resumed, and on two processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.checkpoint.serialization import load_state
from mm_cpgd.training.learner import Learner
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
QUIET = ["evaluation.after=false", "data.eval=null"]
TOKENS = [
    "algorithm.advantage={name: examples/parts/shortest_first.py:shortest_first}",
    "algorithm.completions=[{name: drop_truncated}]",
    "algorithm.token_advantages=[{name: entropy_shaped}, {name: conflict_tokens},"
    " {name: examples/parts/late_tokens.py:late_tokens}]",
    "algorithm.regularizers=[{name: policy_drift, alpha: {from: 0.1, to: 0.001, shape: cosine}}]",
    *QUIET,
]
# An untrained policy's steps differ by 0.02 nats, of which rounding is 1e-4, so that two processes differ by
# 2e-5 in the largest ratio. tests/algorithms/methods/test_steps.py bounds what rounding of entropies does.
STEPS = ["algorithm.recipe=empg", "training.learning_rate=1e-4", *QUIET]
TARGETS = [
    "algorithm.recipe=f_dpg",
    "algorithm.token_advantages=[{name: f_divergence, target: tilted, beta: 0.5}]",
    *QUIET,
]
# The default rules give up to 1.5.
MEMORY = ["algorithm.recipe=spo", "rollout.completions=1", *QUIET]
AVERAGE = ["algorithm.advantage={name: examples/parts/row_average.py:row_average, keep: 0.5}", *QUIET]
GROUPS = ["algorithm.recipe=copg", *QUIET]
IMPACT = ["algorithm.recipe=d3s", *QUIET]
AGREEMENT = ["algorithm.recipe=copo", *QUIET]
BUNDLES = ["algorithm.recipe=riskpo", "algorithm.advantage={name: riskpo, bundle: 2}", *QUIET]
BUDGET = ["algorithm.recipe=knapsack", "data.train.limit=6", *QUIET]
CASES = {
    "budget": BUDGET,
    "impact": IMPACT,
    "agreement": AGREEMENT,
    "bundles": BUNDLES,
    "groups": GROUPS,
    "tokens": TOKENS,
    "targets": TARGETS,
    "memory": MEMORY,
    "average": AVERAGE,
}


def state(run: Path, iteration: int) -> dict[str, Any]:
    found: dict[str, Any] = load_state(run / "checkpoints" / f"step-{iteration}" / "run.safetensors")
    objective: dict[str, Any] = found["shared"]["objective"]
    return objective


@pytest.mark.parametrize("case", [*CASES, "steps"])
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, case: str
) -> None:
    settings = [*{**CASES, "steps": STEPS}[case], "checkpoint.every=1", "checkpoint.keep=9"]
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'one'}"])
    rows = read_rows(tmp_path / "one")
    assert any(row.get("optimizer/grad_norm", 0) > 0 for row in rows)
    shutil.copytree(tmp_path / "one", tmp_path / "run")
    for later in (2, 3):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{later}")
    trainer_jobs.run(yaml, settings, resume=True)
    assert read_rows(tmp_path / "run") == rows
    kept, expected = (state(tmp_path / name, 3) for name in ("run", "one"))
    assert repr(kept) == repr(expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_results_of_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, case: str
) -> None:
    settings = CASES[case]
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, settings) == [0, 0]
    for found, expected in zip(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_groups_known_at_the_old_policy_are_not_evaluated_again(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*GROUPS, "algorithm.token_weights=[{name: forking_tokens, share: 0.5}]"]
    evaluate, prepare_step, passes = Learner._evaluate, Learner.prepare_step, [0]

    def counted(learner: Learner, *arguments: Any) -> Any:
        passes[-1] += 1
        return evaluate(learner, *arguments)

    def without_known(learner: Learner, experience: Any, mini_batch: int, iteration: int, _: Any) -> None:
        prepare_step(learner, experience, mini_batch, iteration)

    monkeypatch.setattr(Learner, "_evaluate", counted)
    trainer_jobs.run(yaml, settings)
    passes.append(0)
    monkeypatch.setattr(Learner, "prepare_step", without_known)
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'again'}"])
    assert read_rows(tmp_path / "run") == read_rows(tmp_path / "again")
    # One in each of three iterations.
    assert passes[1] - passes[0] == 3
