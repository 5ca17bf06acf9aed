"""Two processes give the results of one, and fail together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mm_cpgd.checkpoint.folder import newest_checkpoint
from tests.fakes import engines
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
FILTER = "algorithm.selection=[{name: accuracy_filter, low: 0.14, high: 0.9}]"
CUTS = ("rollout.temperature=1.3", "rollout.top_k=60", "rollout.min_p=0.05")


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    # Two processes add the same float32 numbers in another order, which changes a gradient norm of 9 by 1e-6
    # of its size on some processors.
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=5e-6, abs=1e-5)


@pytest.mark.slow
def test_torchrun_on_two_processes_gives_the_trajectory_of_one(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    options = [FILTER, *CUTS, "training.micro_batch_tokens=60"]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
    command = ["-m", "mm_cpgd", "train", str(yaml), *options]
    subprocess.run(
        [*launch, "--rdzv-endpoint=localhost:0", *command],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    expected = read_rows(tmp_path / "one")
    # The filter is on, and leaves the processes different numbers of rows.
    assert {row.get("groups/kept") for row in expected} - {None, 1.0}
    assert_same(read_rows(tmp_path / "run"), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cap"), [("truncate_sequences", 1.05), ("mask_tokens", 1.3)])
def test_corrections_and_the_comparison_with_the_engine_are_those_of_one_process(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch, kind: str, cap: float
) -> None:
    options = [
        *(FILTER, "data.eval=null", "training.iterations=2", "training.micro_batch_tokens=60"),
        *("rollout.engine=vllm", f"rollout.vllm.correction={kind}", "rollout.vllm.max_difference=1"),
        f"rollout.vllm.importance_cap={cap}",
    ]
    monkeypatch.setattr("mm_cpgd.training.run.build_engine", None)  # restored at the end
    engines.shift_logprobs()
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, options, engines.shift_logprobs) == [0, 0]
    expected = read_rows(tmp_path / "one")
    share = "rollout/weight_masked" if kind == "mask_tokens" else "rollout/weight_clipped"
    assert all(0 < row[share] < 1 for row in expected)
    assert all(0.1 < row["rollout/logprob_difference_mean"] < 0.5 for row in expected)
    assert_same(read_rows(tmp_path / "run"), expected)


@pytest.mark.slow
def test_two_processes_stop_together_at_an_engine_that_differs(yaml: Path, tmp_path: Path) -> None:
    options = ["data.eval=null", "rollout.engine=vllm"]
    assert trainer_jobs.in_two_processes(yaml, options, engines.shift_logprobs) == [1, 1]
    message = (tmp_path / "stderr-0").read_text()
    assert "iteration 1: the log-probabilities of vLLM and of the trainer differ" in " ".join(message.split())
    assert "Traceback" not in message


@pytest.mark.slow
def test_two_processes_resume_together(yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, [FILTER, f"output={tmp_path / 'one'}", "evaluation.after=false"])
    short = [FILTER, "evaluation.after=false", "training.iterations=2"]
    assert trainer_jobs.in_two_processes(yaml, short) == [0, 0]
    assert trainer_jobs.in_two_processes(yaml, short[:2], resume=True) == [0, 0]
    assert_same(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"))


@pytest.mark.slow
def test_fine_tuning_on_two_processes_gives_the_trajectory_of_one(
    yaml: Path, tmp_path: Path, read_rows: Rows
) -> None:
    options = ["rollout.max_new_tokens=200", "data.eval=null"]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"], imitate=True)
    assert trainer_jobs.in_two_processes(yaml, options, imitate=True) == [0, 0]
    assert_same(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"))
    one, two = (load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "run"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3


@pytest.mark.slow
def test_a_full_disk_ends_both_processes_with_one_message_and_leaves_no_incomplete_checkpoint(
    yaml: Path, tmp_path: Path
) -> None:
    options = ["data.eval=null", "training.iterations=1"]
    assert trainer_jobs.in_two_processes(yaml, options, trainer_jobs.fail_to_save) == [2, 2]
    assert "the disk is full" in (tmp_path / "stderr-0").read_text()
    assert "Traceback" not in (tmp_path / "stderr-0").read_text()
    assert newest_checkpoint(tmp_path / "run" / "checkpoints", print) is None


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_refused_on_both_processes(yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: old\n")
    assert trainer_jobs.in_two_processes(yaml) == [2, 2]
