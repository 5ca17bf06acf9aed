"""Whole runs on a real vLLM, in processes of their own, as ``make test-vllm`` starts them.

vLLM's build for CPUs samples the tiny policy in float32. A run has to end with the expected status, without a
traceback, and leave no process behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT

# Largest difference, in nats, between log-probabilities of vLLM and of the trainer in float32: 1e-5 measured.
# Weights of the iteration before make it 1e-2 at these learning rates.
BOUND = 1e-3
MARK = "MM_CPGD_TEST_RUN"
CONFIG = """\
name: vllm
seed: 1
output: {folder}/run
policy: {{model: "embedded:tiny", dtype: float32}}
data: {{train: {{path: "generated:all", limit: 12, seed: 1}}}}
rollout:
  engine: vllm
  vllm: {{max_model_len: 512, options: {{dtype: float32, enforce_eager: true}}}}
  prompts: 8
  completions: 4
  max_new_tokens: 24
rewards: [{{rule: accuracy}}, {{rule: format, weight: 0.5}}]
algorithm: {{recipe: cpgd}}
training: {{iterations: 4, inner_epochs: 1, mini_batch_prompts: 4, learning_rate: 1.0e-4, threads: 1}}
checkpoint: {{every: 0}}
"""


@dataclass
class Ended:
    """A run that has ended.

    Attributes:
        output: what it printed to both streams.
        rows: its metrics, one row per iteration.
    """

    output: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def differences(self) -> list[float]:
        """Largest difference of log-probabilities in each iteration, in nats."""
        return [row["rollout/logprob_difference_max"] for row in self.rows if row["iteration"]]


Train = Callable[..., Ended]


def vllm_options(dtype: str = "float32") -> str:
    """Return ``rollout.vllm.options`` of a run in the test's own process.

    vLLM's build for CPUs cannot compute a prompt in parts if requests have seeds of their own.
    """
    whole = "enable_chunked_prefill: false, max_num_batched_tokens: 65536"
    return f"{{dtype: {dtype}, enforce_eager: true, {whole}}}"


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        MARK: uuid.uuid4().hex,
    }


def start(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, *command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            cwd=ROOT,
        )


def finish(process: subprocess.Popen[bytes], log: Path, mark: str, status: int = 0) -> str:
    """Wait for the end; check exit status, output and that no process is left; return the output."""
    try:
        code = process.wait(600)
        output = log.read_text(errors="replace")
        assert code == status, output[-3000:]
        assert "Traceback" not in output, output[-3000:]
        assert left_behind(mark) == []
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
    return output


def left_behind(mark: str) -> list[str]:
    """Return the command lines of a run's processes that live on ten seconds after its end."""
    deadline = time.monotonic() + 10
    while (found := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return list(found.values())


def marked(mark: str) -> dict[int, str]:
    """Return id and command line of every process that has inherited the mark of a run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended, or is another user's
            continue
    return found


def read_rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write_config(folder: Path) -> Path:
    """Write a config whose run repeats twelve pictures; its run folder will be ``run`` beside it."""
    file = folder / "run.yaml"
    file.write_text(CONFIG.format(folder=folder))
    return file


def train_in(folder: Path, *overrides: str, processes: int = 1, status: int = 0) -> Ended:
    """Train by the command line, on one or several processes; return what came of it."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*launch[: 4 if processes > 1 else 0], "-m", "mm_cpgd", "train", str(write_config(folder))]
    variables, log, run = environment(), folder / "log", folder / "run"
    process = start([*command, *overrides, "--overwrite"], log, variables)
    output = finish(process, log, variables[MARK], status)
    return Ended(output, read_rows(run) if (run / "metrics.jsonl").exists() else [])


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    """The config of ``write_config``."""
    return write_config(tmp_path)


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train in a folder of the test."""
    return partial(train_in, tmp_path)
