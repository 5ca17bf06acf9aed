"""What accelerate is asked for and training cannot do is refused, before anything could wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

from mm_cpgd.distributed import check_launch, check_whole_weights, ignored_precision
from mm_cpgd.errors import UserError


def launched(kind: DistributedType, zero_stage: int | None = None) -> Any:
    plugin = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage)
    return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(deepspeed_plugin=plugin))


@pytest.mark.parametrize(
    ("accelerator", "name"),
    [
        (launched(DistributedType.FSDP), "FSDP"),
        (launched(DistributedType.MEGATRON_LM), "MEGATRON_LM"),
        (launched(DistributedType.DEEPSPEED, 3), "DeepSpeed ZeRO-3"),
    ],
)
def test_sharded_weights_are_refused_with_the_alternative(accelerator: Any, name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} shards.*use DDP"):
        check_whole_weights(accelerator)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_deepspeed_is_refused_at_every_stage(stage: int) -> None:
    with pytest.raises(UserError, match=f"^DeepSpeed ZeRO-{stage} is not supported.*use DDP"):
        check_whole_weights(launched(DistributedType.DEEPSPEED, stage))


def test_a_tpu_is_refused() -> None:
    with pytest.raises(UserError, match="TPU"):
        check_whole_weights(launched(DistributedType.XLA))


@pytest.mark.parametrize(
    "accelerator",
    [
        launched(DistributedType.NO),
        launched(DistributedType.MULTI_GPU),
        launched(DistributedType.MULTI_CPU),
    ],
)
def test_whole_weights_pass(accelerator: Any) -> None:
    check_whole_weights(accelerator)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_CPU": "true"}, "^FSDP shards.*use DDP"),
        ({"ACCELERATE_USE_FSDP": "1"}, "^FSDP shards"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "^MEGATRON_LM shards"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "True"}, "parallelism_config shards"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "^DeepSpeed is not supported.*use DDP"),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
            "^DeepSpeed ZeRO-2 is not supported",
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "^DeepSpeed ZeRO-3 shards",
        ),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps to 1"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto"}, "gradient_accumulation_steps to 1"),
    ],
)
def test_settings_that_would_be_ignored_or_fail_are_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_launch(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ACCELERATE_USE_FSDP": "false", "ACCELERATE_USE_DEEPSPEED": "False", "ACCELERATE_USE_CPU": "true"},
        {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "no"},
        {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"},
    ],
)
def test_the_environment_of_a_plain_launch_passes(environment: dict[str, str]) -> None:
    check_launch(environment)


@pytest.mark.parametrize("command", ["train", "sft"])
@pytest.mark.parametrize(
    "environment", [{"ACCELERATE_USE_DEEPSPEED": "true"}, {"ACCELERATE_USE_FSDP": "true"}]
)
def test_a_run_under_them_ends_with_one_message(
    tmp_path: Path, make_yaml: Callable[[Path], Path], command: str, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mm_cpgd", command, str(make_yaml(tmp_path))],
        env=os.environ | environment | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "use DDP" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_precision_that_is_not_carried_out_is_said() -> None:
    for wanted in ("fp16", "FP8"):
        check_launch({"ACCELERATE_MIXED_PRECISION": wanted})
        line = ignored_precision({"ACCELERATE_MIXED_PRECISION": wanted})
        assert line is not None
        assert f"{wanted} is left out: training.mixed_precision" in line
    for wanted in ("no", "bf16"):
        assert ignored_precision({"ACCELERATE_MIXED_PRECISION": wanted}) is None
    assert ignored_precision({}) is None
