"""Runs of a worker process: independent of earlier runs, and equal where the computation is equal."""

from __future__ import annotations

import pytest

from mm_cpgd.study.grid import Stress, Trial
from mm_cpgd.study.results import StudyRun
from mm_cpgd.study.worker import TrialRunner
from tests.fakes.study import TRIAL

# The cold-started policy: a random one gets no reward, and all objectives would take no step.
SMALL = (
    "rollout.prompts=4", "rollout.completions=4", "training.iterations=2",
    "rollout.max_new_tokens=32", "data.train.limit=8", "data.eval.limit=2", "evaluation.every=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def runner() -> TrialRunner:
    """A runner that other tests use too, so that it has run other trials."""
    return TrialRunner()


def numbers(result: StudyRun) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if not k.startswith(("seconds/", "tokens/per"))} for row in result.rows
    ]


def test_a_run_does_not_depend_on_what_its_process_ran_before(tmp_path, runner):
    runner.run(Trial("grpo", Stress(1e-2, 1), 2), tmp_path / "b", SMALL)
    used = runner.run(TRIAL, tmp_path / "c", SMALL)
    fresh = TrialRunner().run(TRIAL, tmp_path / "a", SMALL)
    assert numbers(used) == numbers(fresh)
    assert [row["iteration"] for row in fresh.rows] == [0, 1, 2]
    assert fresh.rows[1]["optimizer/grad_norm"] > 0
    assert not (tmp_path / "a").exists()


def test_with_one_update_the_ablations_are_the_same_computation(tmp_path, runner):
    def last(name: str) -> list[float]:
        row = runner.run(Trial(name, Stress(1e-3, 1), 1), tmp_path / name, SMALL).rows[-1]
        return [row[key] for key in ("optimizer/grad_norm", "policy/entropy", "completion/length_mean")]

    assert last("cpg") == last("cpgd") == last("pgd") == last("pg_std") != last("cpgd_equal")


def test_wrong_rewards_change_the_training_and_not_the_held_out_accuracy(tmp_path, runner):
    right, wrong = (
        runner.run(Trial(name, Stress(1e-3, 1), 1), tmp_path / "w", SMALL).rows
        for name in ("grpo", "grpo@wrong_30")
    )
    assert right[0]["eval/accuracy"] == wrong[0]["eval/accuracy"]
    assert right[1]["reward/accuracy"] == wrong[1]["reward/accuracy"] != wrong[1]["reward/checked"]
