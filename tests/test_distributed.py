"""What accelerate is asked for and training cannot do is refused, before anything could wait for ever."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.config.schema import DistributedConfig
from mm_cpgd.distributed import Strategy, choose_strategy, ignored_precision
from mm_cpgd.errors import UserError
from tests.paths import ROOT

PLAIN = DistributedConfig()
SHARDED = DistributedConfig(strategy="fsdp2")
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_CPU": "true"}, "fsdp_version to 2"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "^Megatron-LM is not supported.*strategy=fsdp2"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "True"}, "parallelism_config is not supported"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "^DeepSpeed is not supported.*as ZeRO-3 does"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps to 1"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto"}, "gradient_accumulation_steps to 1"),
    ],
)
def test_settings_that_would_be_ignored_or_fail_are_refused(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose_strategy(PLAIN, environment)


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
    assert choose_strategy(PLAIN, environment) == Strategy()


def test_a_config_asks_for_shards() -> None:
    config = DistributedConfig(strategy="fsdp2", cpu_offload=True, reshard_after_forward=False)
    assert choose_strategy(config, {}) == Strategy(True, cpu_offload=True, reshard_after_forward=False)


def test_deepspeed_in_the_config_is_refused_with_the_alternative() -> None:
    with pytest.raises(UserError, match=r"^DeepSpeed is not supported.*strategy=fsdp2"):
        choose_strategy(DistributedConfig(strategy="deepspeed"), {})


@pytest.mark.parametrize("config", [PLAIN, SHARDED])
def test_the_fsdp_of_a_launch_is_carried_out(config: DistributedConfig) -> None:
    launched = {
        **FSDP2,
        "FSDP_OFFLOAD_PARAMS": "true",
        "FSDP_RESHARD_AFTER_FORWARD": "false",
        "FSDP_ACTIVATION_CHECKPOINTING": "true",
    }
    assert choose_strategy(config, launched) == Strategy(True, True, False, checkpoint_layers=True)
    assert choose_strategy(config, FSDP2) == Strategy(True)


@pytest.mark.parametrize(
    ("config", "launched", "message"),
    [
        ({"strategy": "ddp"}, {}, "strategy=ddp contradicts"),
        ({"cpu_offload": True}, {"FSDP_OFFLOAD_PARAMS": "false"}, "cpu_offload=true contradicts"),
        (
            {"reshard_after_forward": True},
            {"FSDP_RESHARD_AFTER_FORWARD": "false"},
            "reshard_after_forward=true contradicts",
        ),
    ],
)
def test_a_config_that_contradicts_the_launch_is_one_message(
    config: dict[str, Any], launched: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose_strategy(DistributedConfig(**config), FSDP2 | launched)


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
    assert "distributed.strategy=fsdp2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_precision_that_is_not_carried_out_is_said() -> None:
    for wanted in ("fp16", "FP8"):
        choose_strategy(PLAIN, {"ACCELERATE_MIXED_PRECISION": wanted})
        line = ignored_precision({"ACCELERATE_MIXED_PRECISION": wanted})
        assert line is not None
        assert f"{wanted} is left out: training.mixed_precision" in line
    for wanted in ("no", "bf16"):
        assert ignored_precision({"ACCELERATE_MIXED_PRECISION": wanted}) is None
    assert ignored_precision({}) is None


@pytest.mark.parametrize("own", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}])
def test_the_allocator_keeps_freed_memory_unless_the_user_has_set_it(own: dict[str, str]) -> None:
    # In a process of its own, which it is meant for.
    code = "from mm_cpgd.distributed import _keep_freed_memory; print(_keep_freed_memory())"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | own, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(platform.libc_ver()[0] == "glibc" and not own)]


def test_a_run_imports_no_package_that_it_does_not_use() -> None:
    names = ["matplotlib", "peft", "bitsandbytes", "trl", "datasets", "wandb"]
    code = (
        "import sys, torch; from mm_cpgd.config.schema import PolicyConfig, TrainingConfig; "
        "from mm_cpgd.policy import load_policy; from mm_cpgd.training import run; "
        "from mm_cpgd.training.optimizer import build_optimizer, build_schedule; "
        "training = TrainingConfig(); "
        "optimizer = build_optimizer(load_policy(PolicyConfig(model='embedded:tiny')), training); "
        f"build_schedule(optimizer, training, 1); print([name for name in {names} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
