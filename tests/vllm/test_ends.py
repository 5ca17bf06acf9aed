"""Runs with a real vLLM that end before their last iteration: one message, and nothing left behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.vllm.conftest import MARK, Train, environment, finish, start

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")


def test_another_image_limit_ends_the_run_with_what_to_check(train: Train) -> None:
    options = "{dtype: float32, enforce_eager: true, mm_processor_kwargs: {max_pixels: 784}}"
    ended = train(f"rollout.vllm.options={options}", status=2)
    assert "vLLM tokenizes a prompt differently from the policy" in ended.output


def test_a_vllm_that_does_not_start_ends_the_run_with_its_reason(train: Train) -> None:
    ended = train("rollout.vllm.max_model_len=10000000", status=2)
    assert "mm-cpgd: vLLM does not start with" in ended.output


def test_a_run_that_is_asked_to_stop_ends_with_a_checkpoint(yaml: Path) -> None:
    variables, log, folder = environment(), yaml.with_name("log"), yaml.with_name("run")
    command = ["-m", "mm_cpgd", "train", str(yaml), "training.iterations=500"]
    process = start(command, log, variables)
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output = finish(process, log, variables[MARK], 128 + signal.SIGTERM)
    assert "run the same command with --resume to continue" in output
    assert list((folder / "checkpoints").iterdir())
