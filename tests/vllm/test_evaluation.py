"""Evaluation by a real vLLM: held-out rows in training, and ``mm-cpgd eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vllm.conftest import MARK, Train, environment, finish, start

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")

BENCHMARK = """
from data import load_examples
from eval.benchmark import Benchmark
from rewards import Status, Verdict

def load(source):
    return list(load_examples("generated:all", limit=source.limit, seed=7).examples)

def official(example, response):
    right = float(example.answer in response.text)
    return Verdict(right, Status.CORRECT if right else Status.WRONG, response.text[-5:])

benchmark = Benchmark("drawn", "generated:all", load, lambda row: row.question, official, max_new_tokens=32)
"""


def test_held_out_rows_are_answered_as_by_the_policy_itself(train: Train) -> None:
    held_out = 'data.eval={path: "generated:all", limit: 24, seed: 9}'
    ended = train(held_out, "training.iterations=1")
    here = train(held_out, "training.iterations=1", "rollout.engine=local")
    keys = ("eval/accuracy", "eval/length_mean", "eval/truncated")
    assert [ended.rows[0][key] for key in keys] == pytest.approx([here.rows[0][key] for key in keys])


EVAL = ("-m", "mm_cpgd", "eval", "--model", "embedded:tiny", "--dtype", "float32", "--no-cache")
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def evaluate(folder: Path, name: str, *options: str, processes: int = 1) -> list[dict[str, Any]]:
    """Evaluate on drawn questions; return the rows of the result."""
    (folder / "drawn.py").write_text(BENCHMARK)
    data = ["--benchmark", str(folder / "drawn.py"), "--data", str(folder), "--output", str(folder / name)]
    command = [*LAUNCH[: 4 if processes > 1 else 0], *EVAL, *data, *options]
    # Each worker of a vLLM on a CPU gets a core of its own.
    variables = environment()
    if processes == 1 and "--tensor-parallel" in options:
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "0|1"
    log = folder / f"{name}.log"
    finish(start(command, log, variables), log, variables[MARK])
    lines = (folder / name / "drawn" / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_benchmark_gets_the_responses_of_the_local_engine(tmp_path: Path) -> None:
    found = {
        engine: [row["response"] for row in evaluate(tmp_path, engine, "--engine", engine, "--limit", "24")]
        for engine in ("local", "vllm")
    }
    assert len(found["vllm"]) == 24
    assert found["vllm"] == found["local"]


FEW = ("--engine", "vllm", "--limit", "10", "--max-new-tokens", "12", "--force-answer", "ours")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of one process with a vLLM of its own."""
    return evaluate(tmp_path_factory.mktemp("alone"), "one", *FEW)


def test_thoughts_that_were_cut_off_are_continued(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    forced = [row for row in alone if row.get("forced")]
    assert forced
    assert all("\n\nSo the final answer is \\boxed{" in row["response"] for row in forced)
    local = [option.replace("vllm", "local") for option in FEW]
    assert [row["response"] for row in evaluate(tmp_path, "local", *local)] == [
        row["response"] for row in alone
    ]


@pytest.mark.parametrize(
    ("name", "processes", "options"),
    [
        ("several", 2, ()),
        ("sharing", 2, ("--tensor-parallel", "2")),
        ("own", 1, ("--tensor-parallel", "2")),
    ],
)
def test_several_processes_make_the_result_of_one(
    alone: list[dict[str, Any]], tmp_path: Path, name: str, processes: int, options: tuple[str, ...]
) -> None:
    assert evaluate(tmp_path, name, *FEW, *options, processes=processes) == alone


def test_penalty_and_stop_texts_change_what_is_generated(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    options = ["--repetition-penalty", "100", "--stop", "</think>"]
    found = evaluate(tmp_path, "stopped", *FEW, *options)
    assert all("</think>" not in row["response"] or row.get("forced") for row in found)
    whole = [row["response"].split("</think>")[0] for row in alone]
    assert [row["response"].split("</think>")[0] for row in found] != whole
    assert any(row["finished"] for row in found)
