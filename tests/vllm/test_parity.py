"""The parity gate on a real vLLM: right weights pass, wrong ones and wrong formats end the run at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import RunEnded
from tests.fakes.training_runs import run
from tests.vllm.conftest import vllm_options

pytest.importorskip("vllm")

Rows = Callable[[Path], list[dict[str, Any]]]
CONFIG = """\
name: parity
seed: 3
output: {folder}/run
policy: {{model: "embedded:tiny", dtype: float32}}
data:
  train: {{path: "generated:shapes,clock,table,lengths", limit: 16, seed: 1}}
rollout:
  engine: vllm
  prompts: 8
  completions: 4
  max_new_tokens: 32
  vllm:
    mode: colocated
    max_model_len: 512
    options: {options}
rewards: [{{rule: accuracy}}]
algorithm: {{recipe: cpgd}}
training: {{iterations: 1, mini_batch_prompts: 4, learning_rate: 1.0e-5, threads: 1, mixed_precision: "no"}}
"""
SAMPLINGS = [
    [],
    ["rollout.temperature=0.7", "rollout.top_k=5"],
    ["rollout.temperature=1.5", "rollout.top_p=0.9", "rollout.min_p=0.1", "rollout.cuts=reweight"],
]


@pytest.fixture
def config(tmp_path: Path, on_cpu: None) -> Callable[[str], Path]:
    """Write the config of a run whose vLLM has this number format."""

    def write(dtype: str) -> Path:
        path = tmp_path / "parity.yaml"
        path.write_text(CONFIG.format(folder=tmp_path, options=vllm_options(dtype)))
        return path

    return write


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_right_weights_in_float32_are_far_below_the_bound(
    config: Callable[[str], Path], tmp_path: Path, read_rows: Rows, sampling: list[str]
) -> None:
    run(config("float32"), sampling)
    (row,) = read_rows(tmp_path / "run")
    assert row["rollout/logprob_difference_trimmed"] < 1e-6
    assert row["rollout/logprob_difference_mean"] < 1e-4
    assert row["rollout/logprob_missing"] == 0
    assert row["optimizer/skipped"] == 0


def test_a_perturbed_weight_ends_the_run_in_its_first_batch(
    config: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mm_cpgd.rollout.vllm.engine import VllmEngine

    def perturb(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if name.endswith("layers.0.input_layernorm.weight"):
                parameter.data += 1e-3

    # Instead of the policy's weights, vLLM gets a slight change of those that it started with.
    monkeypatch.setattr(VllmEngine, "load_weights", lambda self, _: self.backend.llm.apply_model(perturb))
    with pytest.raises(RunEnded, match=r"iteration 1: .*allowed are 1e-05 \(default of float32") as ended:
        run(config("float32"))
    assert ended.value.exit_code == 1
    assert "quantization" in str(ended.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_bfloat16_beside_a_float32_trainer_needs_the_larger_bound(
    config: Callable[[str], Path], tmp_path: Path, read_rows: Rows
) -> None:
    with pytest.raises(RunEnded, match=r"allowed are 1e-05 \(rollout\.vllm\.max_difference\)"):
        run(config("bfloat16"), ["rollout.vllm.max_difference=0.00001"])
    run(config("bfloat16"), overwrite=True)
    (row,) = read_rows(tmp_path / "run")
    assert 1e-4 < row["rollout/logprob_difference_trimmed"] < 1e-2


@pytest.mark.parametrize("kind", ["truncate_sequences", "mask_tokens"])
def test_corrections_of_rounding_leave_almost_every_token(
    config: Callable[[str], Path], tmp_path: Path, read_rows: Rows, kind: str
) -> None:
    run(config("bfloat16"), [f"rollout.vllm.correction={kind}"])
    (row,) = read_rows(tmp_path / "run")
    assert row["rollout/weight_mean"] == pytest.approx(1.0, abs=0.02)
    share = row["rollout/weight_masked" if kind.startswith("mask") else "rollout/weight_clipped"]
    assert share < 0.02
