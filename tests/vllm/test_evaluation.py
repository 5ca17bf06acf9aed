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


def test_a_benchmark_gets_the_responses_of_the_local_engine(tmp_path: Path) -> None:
    (tmp_path / "drawn.py").write_text(BENCHMARK)
    found = {}
    for engine in ("local", "vllm"):
        command = ["-m", "mm_cpgd", "eval", "--model", "embedded:tiny", "--engine", engine]
        command += ["--benchmark", str(tmp_path / "drawn.py"), "--data", str(tmp_path), "--limit", "24"]
        command += ["--dtype", "float32", "--no-cache", "--output", str(tmp_path / engine)]
        variables, log = environment(), tmp_path / f"{engine}.log"
        finish(start(command, log, variables), log, variables[MARK])
        found[engine] = responses(tmp_path / engine / "drawn" / "rows.jsonl")
    assert len(found["vllm"]) == 24
    assert found["vllm"] == found["local"]


def responses(file: Path) -> list[Any]:
    return [json.loads(line)["response"] for line in file.read_text().splitlines()]
