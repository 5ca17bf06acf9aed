"""Set-up of accelerate for a run: device, precision, seeds, trackers, and work for the main process alone."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    broadcast_object_list,
    is_tensorboard_available,
    is_wandb_available,
)

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import USER_ERRORS, UserError

Result = TypeVar("Result")
# Variables by which `accelerate launch` and its config files ask for something else than DDP.
SHARDING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism_config",
}
# Folder in the run folder that TensorBoard and Weights & Biases write to.
TRACKING = "tracking"


def on_main(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Run ``work`` on the main process alone and return its result, which must be picklable, on all.

    A user error is raised on all processes; otherwise the others would wait for one that has ended.
    """
    result: Any = None
    problem: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = work()
        except USER_ERRORS as error:
            problem = error
    result, problem = broadcast_object_list([result, problem])
    if problem is not None:
        raise problem
    return cast(Result, result)


def start_accelerator(config: RunConfig) -> Accelerator:
    """Seed all random generators and set up device, precision and trackers.

    Raises:
        UserError: a requested tracker is not installed, or ``check_launch`` refuses the environment.
    """
    check_launch(os.environ)
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    # Denormal numbers cost a CPU hundreds of cycles each and mean nothing here.
    torch.set_flush_denormal(True)
    return Accelerator(
        mixed_precision=_precision(config.training.mixed_precision),
        log_with=_installed(config.tracking.tools) or None,
        project_dir=str(config.folder / TRACKING),
        # Rows without an image leave a trained vision tower without gradient.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=not config.policy.freeze_vision)
        ],
    )


def check_launch(environment: Mapping[str, str]) -> None:
    """Refuse settings of accelerate that would not be carried out; called before accelerate reads them.

    On a CPU or with one process accelerate ignores most of them silently, and others end in a traceback.

    Args:
        environment: the environment variables, as ``accelerate launch`` sets them.

    Raises:
        UserError: sharding, or gradient accumulation.
    """
    for name, kind in SHARDING.items():
        if _is_set(environment.get(name, "")):
            stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
            has_stage = kind == "DeepSpeed" and stage.isdecimal()
            raise _sharding_error(kind, int(stage) if has_stage else None, f" ({name}={environment[name]})")
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise UserError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps} would divide the gradient once more; set the "
            "accelerate config's gradient_accumulation_steps to 1: training.mini_batch_prompts sizes "
            "an optimizer step, training.micro_batch_tokens a forward pass"
        )


def ignored_precision(environment: Mapping[str, str]) -> str | None:
    """Return a line if accelerate is asked for a precision that is not carried out, None otherwise."""
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision.lower() not in ("fp16", "fp8"):
        return None
    return (
        f"ACCELERATE_MIXED_PRECISION={precision} is left out: training.mixed_precision of the run's config "
        "decides, and has bf16 and no"
    )


def check_whole_weights(accelerator: Accelerator) -> None:
    """Refuse weights, gradients or optimizer state that are sharded over processes.

    Raises:
        UserError: FSDP, Megatron, DeepSpeed, or a TPU.
    """
    kind = accelerator.distributed_type
    if kind is DistributedType.DEEPSPEED:
        plugin = getattr(accelerator.state, "deepspeed_plugin", None)
        raise _sharding_error("DeepSpeed", getattr(plugin, "zero_stage", None))
    if kind in (DistributedType.FSDP, DistributedType.MEGATRON_LM):
        raise _sharding_error(kind.value, None)
    if kind is DistributedType.XLA:
        raise UserError("TPUs (XLA) are not supported; use GPUs or CPUs")


def _sharding_error(kind: str, stage: int | None, setting: str = "") -> UserError:
    """Return the error for DeepSpeed at this ZeRO stage, None if unknown, or another kind of sharding."""
    name = kind if stage is None else f"{kind} ZeRO-{stage}"
    if kind == "DeepSpeed" and stage != 3:
        # Its engine wants a data loader, steps on its own count of micro-batches and clips by its own config.
        reason = (
            "is not supported: it would step after every micro-batch, and neither clip the gradient nor skip "
            "steps that are not finite as the config says"
        )
    else:
        # A forward pass per token gathers the weights from all processes; one with shorter completions
        # would leave the others waiting forever.
        reason = (
            "shards the weights over processes, and neither can completions be sampled from a shard nor "
            "final/ be written"
        )
    return UserError(
        f"{name} {reason}{setting}; use DDP (accelerate launch --multi_gpu, on CPUs torchrun), with "
        "policy.lora to save memory"
    )


def _is_set(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "y", "on", "t")


def start_trackers(config: RunConfig, accelerator: Accelerator) -> None:
    """Open TensorBoard or Weights & Biases, where configured."""
    if config.tracking.tools:
        accelerator.init_trackers(config.tracking.project, config=_flat(config.model_dump(mode="json")))


def _installed(tools: Sequence[str]) -> list[Any]:
    available = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
    for tool in tools:
        if not available[tool]():
            raise UserError(f"tracking.tools: {tool} is not installed; pip install 'mm-cpgd[{tool}]'")
    return list(tools)


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return ``{"rollout.prompts": 32, …}``, the flat form that trackers accept."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (str, int, float, bool)) else str(value)
    return flat
