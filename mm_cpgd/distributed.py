"""Set-up of accelerate for a run: device, precision, seeds, trackers, and work for the main process alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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
        UserError: a requested tracker is not installed.
    """
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


def check_whole_weights(accelerator: Accelerator) -> None:
    """Refuse to sample from weights that are sharded over processes.

    Sampling takes as many forward passes as the longest completion has tokens, and each gathers the weights
    from all processes: a process with shorter completions would leave the others waiting forever.

    Raises:
        UserError: FSDP, Megatron or DeepSpeed ZeRO-3.
    """
    kind = accelerator.distributed_type
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    zero3 = kind is DistributedType.DEEPSPEED and plugin is not None and plugin.zero_stage == 3
    if zero3 or kind in (DistributedType.FSDP, DistributedType.MEGATRON_LM):
        name = "DeepSpeed ZeRO-3" if zero3 else kind.value
        raise UserError(
            f"{name} shards the weights over processes, and completions cannot be sampled from a "
            "shard; use DDP (accelerate launch --multi_gpu) or DeepSpeed ZeRO-2, policy.lora to save memory"
        )


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
