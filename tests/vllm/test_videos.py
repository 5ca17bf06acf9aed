"""Videos on a real vLLM: it sees the policy's frames at their times, or tokens and values would differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.training_runs import run
from tests.vllm.conftest import vllm_options

pytest.importorskip("vllm")

CONFIG = """\
name: videos
seed: 3
output: {folder}/run
policy: {{model: {model}, dtype: float32}}
data:
  train: {{path: "generated:motion", limit: 8, seed: 1}}
  max_prompt_tokens: 512
rollout:
  engine: vllm
  prompts: 4
  completions: 4
  max_new_tokens: 8
  vllm:
    max_model_len: 1024
    options: {options}
rewards: [{{rule: video_answer}}]
algorithm: {{recipe: cpgd}}
training: {{iterations: 2, learning_rate: 1.0e-5, threads: 1, mixed_precision: "no"}}
"""


def test_log_probabilities_behind_a_video_are_those_of_the_trainer(
    tmp_path: Path,
    wordy_folder: Path,
    on_cpu: None,
    read_rows: Callable[[Path], list[dict[str, Any]]],
) -> None:
    path = tmp_path / "videos.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, model=wordy_folder, options=vllm_options()))
    run(path, ["data.eval=null"])
    for row in read_rows(tmp_path / "run"):
        assert row["rollout/logprob_missing"] == 0
        assert row["rollout/logprob_difference_mean"] < 1e-4
