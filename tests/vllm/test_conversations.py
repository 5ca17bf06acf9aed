"""Conversations on a real vLLM: its tokens are the policy's, and greedy ones those of the local engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

from mm_cpgd.tracking import read_rollouts
from tests.fakes.training_runs import run
from tests.paths import ROOT
from tests.vllm.conftest import vllm_options
from tests.vllm.serving import Serving

pytest.importorskip("vllm")

Rows = Callable[[Path], list[dict[str, Any]]]
CONFIG = """\
name: conversations
seed: 3
output: {folder}/run
policy: {{model: {model}, dtype: float32}}
data:
  train: {{path: "generated:shapes,clock", limit: 12, seed: 1}}
rollout:
  prompts: 4
  completions: 4
  max_new_tokens: 8
  top_k: {top_k}
  environment: {{name: "{root}/tests/fakes/environments.py:Looking", scores: {{seen: 1.0}}}}
  vllm:
    max_model_len: 512
    options: {options}
rewards: [{{rule: accuracy}}]
algorithm: {{recipe: cpgd}}
training: {{iterations: 1, learning_rate: 1.0e-5, threads: 1, mixed_precision: "no"}}
"""


@pytest.fixture
def config(tmp_path: Path, wordy_folder: Path, on_cpu: None) -> Callable[[int], Path]:
    """Write the config of a run that samples with this top-k; 1 is greedy."""

    def write(top_k: int) -> Path:
        path = tmp_path / "conversations.yaml"
        path.write_text(
            CONFIG.format(folder=tmp_path, model=wordy_folder, root=ROOT, top_k=top_k, options=vllm_options())
        )
        return path

    return write


def test_own_tokens_have_the_log_probabilities_of_the_trainer(
    config: Callable[[int], Path], tmp_path: Path, read_rows: Rows
) -> None:
    run(config(0), ["rollout.engine=vllm"])
    (row,) = read_rows(tmp_path / "run")
    assert row["conversation/turns"] > 1
    assert row["conversation/failed"] == 0
    assert row["rollout/logprob_missing"] == 0
    assert row["rollout/logprob_difference_mean"] < 1e-4


def greedy_turns(config: Path, folder: Path, *options: str) -> list[list[str]]:
    """Return the texts of the turns of each conversation of a run."""
    run(config, [*options, f"output={folder}"])
    prompts = read_rollouts(folder / "rollouts/iteration-000001.jsonl")
    return [[turn.text for turn in one.turns] for prompt in prompts for one in prompt.completions]


def test_greedy_conversations_are_those_of_the_local_engine(
    config: Callable[[int], Path], tmp_path: Path
) -> None:
    wanted = greedy_turns(config(1), tmp_path / "local")
    assert any(len(turns) > 1 for turns in wanted)
    assert greedy_turns(config(1), tmp_path / "vllm", "rollout.engine=vllm") == wanted


@pytest.fixture
def server(tmp_path: Path, wordy_folder: Path) -> Iterator[Serving]:
    # The route for prompts of tokens is one of those for several servers behind a router.
    serving = Serving(get_free_port(), tmp_path / "server.log", wordy_folder, ["--enable-scale-out"])
    try:
        serving.start()
        serving.wait()
        yield serving
    finally:
        serving.kill()


def test_on_a_server_they_are_those_of_the_local_engine_too(
    config: Callable[[int], Path], tmp_path: Path, read_rows: Rows, server: Serving
) -> None:
    wanted = greedy_turns(config(1), tmp_path / "local")
    served = f"rollout.vllm={{mode: server, weights: folder, urls: ['{server.url}'], wait: 120}}"
    assert greedy_turns(config(1), tmp_path / "vllm", "rollout.engine=vllm", served) == wanted
    (row,) = read_rows(tmp_path / "vllm")
    assert row["conversation/images"] > 0
    assert row["rollout/logprob_difference_mean"] < 1e-4
    # Every turn is sent as tokens, with the pictures that were shown.
    assert server.answered("/inference/v1/generate") >= sum(map(len, wanted))
