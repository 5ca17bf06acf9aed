"""Fine-tuning with another surrogate than the likelihood: resumed, divided, refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
FEW = ["rollout.max_new_tokens=200", "sft.batch=6", "sft.steps=3", "evaluation.after=false", "data.eval=null"]
DRAWN = "sft.surrogate={name: one_token, draws: 16}"
EXACT = "sft.surrogate={name: one_token_exact}"
SURROGATES = pytest.mark.parametrize("surrogate", [DRAWN, EXACT], ids=["drawn", "exact"])


@SURROGATES
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, surrogate: str
) -> None:
    settings = [*FEW, surrogate, "checkpoint.every=1", "checkpoint.keep=9"]
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'one'}"], imitate=True)
    rows = read_rows(tmp_path / "one")
    assert all(row["optimizer/grad_norm"] > 0 for row in rows)
    shutil.copytree(tmp_path / "one", tmp_path / "run")
    for later in (2, 3):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{later}")
    trainer_jobs.run(yaml, settings, imitate=True, resume=True)
    assert read_rows(tmp_path / "run") == rows


@pytest.mark.slow
@SURROGATES
def test_two_processes_give_the_results_of_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, surrogate: str
) -> None:
    settings = [*FEW, surrogate]
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'one'}"], imitate=True)
    assert trainer_jobs.in_two_processes(yaml, settings, imitate=True) == [0, 0]
    for found, expected in zip(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@SURROGATES
def test_micro_batches_change_no_result(yaml: Path, tmp_path: Path, read_rows: Rows, surrogate: str) -> None:
    for name, tokens in (("one", 100_000), ("many", 200)):
        options = [*FEW, surrogate, f"training.micro_batch_tokens={tokens}", f"output={tmp_path / name}"]
        trainer_jobs.run(yaml, options, imitate=True)
    for found, expected in zip(read_rows(tmp_path / "many"), read_rows(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_likelihood_written_out_is_the_default(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    written = ["sft.surrogate={name: policy_gradient}"]
    for name, more in (("default", []), ("written", written)):
        trainer_jobs.run(yaml, [*FEW, *more, f"output={tmp_path / name}"], imitate=True)
    assert read_rows(tmp_path / "default") == read_rows(tmp_path / "written")


def test_draws_serve_sampled_completions_too(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    surrogate = "algorithm.surrogate={name: one_token, draws: 8}"
    trainer_jobs.run(yaml, [surrogate, "evaluation.after=false", "data.eval=null"])
    assert [0 <= row["policy/drawn_own"] < 1 for row in read_rows(tmp_path / "run")] == [True] * 3


def test_a_surrogate_with_a_ratio_is_refused_before_anything_is_loaded(yaml: Path) -> None:
    with pytest.raises(UserError, match=r"sft.surrogate: gspo compares .* possible: policy_gradient, one_t"):
        trainer_jobs.run(yaml, ["sft.surrogate={name: gspo}", "policy.model=/nowhere"], imitate=True)
