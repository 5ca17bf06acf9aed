"""Set-up of accelerate for a run: device, precision, seeds, trackers, and work for the main process alone."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
    is_tensorboard_available,
    is_wandb_available,
)

from mm_cpgd.config.schema import DistributedConfig, RunConfig, trains_vision
from mm_cpgd.errors import USER_ERRORS, RunEnded, UserError
from mm_cpgd.interrupt import Interrupted

Result = TypeVar("Result")
# Variables by which `accelerate launch` and its config files ask for something else than DDP and FSDP.
UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism_config",
}
FSDP = "ACCELERATE_USE_FSDP"
# Errors of one process that are raised on all: what a user can fix, and what ends a run in good order.
SHARED_ERRORS = (*USER_ERRORS, RunEnded, Interrupted)
# Parameters of glibc's mallopt (malloc.h): what the end of the heap may hold unused, and the size from which
# a block is returned as soon as it is freed, of which it accepts no larger one.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_AT_MOST, LARGEST_MMAP_THRESHOLD = 256 * 1024**2, 32 * 1024**2
# Folder in the run folder that TensorBoard and Weights & Biases write to.
TRACKING = "tracking"


def on_main(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Run ``work`` on the main process alone and return its result, which must be picklable, on all.

    One of ``SHARED_ERRORS`` is raised on all; otherwise the others would wait for one that has ended.
    """
    result: Any = None
    problem: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = work()
        except SHARED_ERRORS as error:
            problem = error
    result, problem = broadcast_object_list([result, problem])
    if problem is not None:
        raise problem
    return cast(Result, result)


def together(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Run ``work`` on all processes; one of ``SHARED_ERRORS`` is raised on all, that of the lowest rank.

    Otherwise the others would wait for one that has ended. Work that waits for the others itself has to fail
    on all of them (see ``Parts``).
    """
    result: Any = None
    problem: Exception | None = None
    try:
        result = work()
    except SHARED_ERRORS as error:
        problem = error
    problems = [one for one in gather_object([problem]) if one is not None]
    if problems:
        raise problems[0]
    return cast(Result, result)


class Parts:
    """Work of one process in several parts, between which it meets the others.

    Attributes:
        problem: the first error among ``SHARED_ERRORS``, kept until all parts are over.
    """

    def __init__(self) -> None:
        self.problem: Exception | None = None

    def run(self, work: Callable[[], Result], otherwise: Result) -> Result:
        """Return the result of a part; ``otherwise`` if it fails."""
        try:
            return work()
        except SHARED_ERRORS as error:
            self.problem = self.problem or error
            return otherwise

    def end(self) -> None:
        """Raise the error, if there was one."""
        if self.problem is not None:
            raise self.problem


def start_accelerator(config: RunConfig, strategy: Strategy) -> Accelerator:
    """Seed all random generators and set up device, precision and trackers.

    Args:
        config: the run's config.
        strategy: as ``choose_strategy`` returned it.

    Raises:
        UserError: a requested tracker is not installed, or there is no device of a supported kind.
    """
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    # Denormal numbers cost a CPU hundreds of cycles each and mean nothing here.
    torch.set_flush_denormal(True)
    # Weights are sharded by the policy itself, and not by accelerate.
    os.environ.pop(FSDP, None)
    accelerator = Accelerator(
        mixed_precision=_precision(config.training.mixed_precision),
        log_with=_installed(config.tracking.tools) or None,
        project_dir=str(config.folder / TRACKING),
        kwargs_handlers=[
            # Rows without an image leave a trained vision tower without gradient.
            DistributedDataParallelKwargs(find_unused_parameters=trains_vision(config.policy)),
            _process_group(config.distributed.timeout, sharded=strategy.sharded),
        ],
    )
    if accelerator.distributed_type is DistributedType.XLA:
        raise UserError("TPUs (XLA) are not supported; use GPUs or CPUs")
    if accelerator.device.type == "cpu":
        _keep_freed_memory()
    return accelerator


def _keep_freed_memory() -> bool:
    """Let glibc, where it is the allocator, keep the memory of freed tensors for the next ones.

    Otherwise it returns what lies at the end of its heap to the system, which clears each page anew when it
    is next written: an operation on some MB then takes several times as long. Returns whether it does so;
    settings of the allocator in the environment stay as they are.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False  # no glibc
    accepted = [mallopt(M_TRIM_THRESHOLD, KEPT_AT_MOST), mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)]
    return all(accepted)


def _process_group(timeout: float, *, sharded: bool) -> InitProcessGroupKwargs:
    seconds = timedelta(seconds=timeout)
    if sharded and torch.cuda.is_available():
        # Shards in CPU memory, and checkpoints in the background, are sent over gloo.
        return InitProcessGroupKwargs(backend="cuda:nccl,cpu:gloo", timeout=seconds)
    return InitProcessGroupKwargs(timeout=seconds)


@dataclass(frozen=True)
class Strategy:
    """How weights, gradients and optimizer state lie on the processes.

    Attributes:
        sharded: in shards (FSDP2), else complete on every process (DDP).
        cpu_offload: keep shards in CPU memory.
        reshard_after_forward: free gathered weights between forward and backward pass.
        checkpoint_layers: accelerate's config asks for activation checkpointing.
    """

    sharded: bool = False
    cpu_offload: bool = False
    reshard_after_forward: bool = True
    checkpoint_layers: bool = False


def choose_strategy(config: DistributedConfig, environment: Mapping[str, str]) -> Strategy:
    """Return the strategy that the run's config and `accelerate launch` ask for.

    Called before accelerate reads the environment: on a CPU or with one process it ignores most of these
    settings silently, and others end in a traceback.

    Args:
        config: the config's distributed section.
        environment: the environment variables, as ``accelerate launch`` sets them.

    Raises:
        UserError: something that is not supported, gradient accumulation, or the two contradict each other.
    """
    for name, kind in UNSUPPORTED.items():
        if _is_set(environment.get(name, "")):
            raise _unsupported(kind, f" ({name}={environment[name]})")
    if config.strategy == "deepspeed":
        raise _unsupported("DeepSpeed", " (distributed.strategy=deepspeed)")
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise UserError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps} would divide the gradient once more; set the "
            "accelerate config's gradient_accumulation_steps to 1: training.mini_batch_prompts sizes "
            "an optimizer step, training.micro_batch_tokens a forward pass"
        )
    if _is_set(environment.get(FSDP, "")):
        return _launched_strategy(config, environment)
    if config.strategy != "fsdp2":
        return Strategy()
    return Strategy(True, config.cpu_offload, config.reshard_after_forward)


def _launched_strategy(config: DistributedConfig, environment: Mapping[str, str]) -> Strategy:
    """Return the strategy of an `accelerate launch` with FSDP."""
    if config.strategy == "ddp":
        raise UserError(
            f"distributed.strategy=ddp contradicts accelerate's config, which asks for FSDP ({FSDP}="
            f"{environment[FSDP]}); set one of them to the other's value"
        )
    if environment.get("FSDP_VERSION", "1") != "2":
        raise UserError(
            "accelerate's config asks for the first version of FSDP; set its fsdp_version to 2, or set "
            "distributed.strategy=fsdp2 and launch without FSDP"
        )
    found = {}
    for key, name in (
        ("cpu_offload", "FSDP_OFFLOAD_PARAMS"),
        ("reshard_after_forward", "FSDP_RESHARD_AFTER_FORWARD"),
    ):
        found[key] = own = getattr(config, key)
        if (launched := environment.get(name)) is None:
            continue
        found[key] = _is_set(launched)
        if key in config.model_fields_set and found[key] != own:
            raise UserError(
                f"distributed.{key}={str(own).lower()} contradicts accelerate's config ({name}={launched}); "
                "set one of them to the other's value"
            )
    return Strategy(
        True, **found, checkpoint_layers=_is_set(environment.get("FSDP_ACTIVATION_CHECKPOINTING", ""))
    )


def _unsupported(kind: str, setting: str) -> UserError:
    reason = "is not supported"
    if kind == "DeepSpeed":
        reason = (
            "is not supported: its engine takes a step after every micro-batch, and clips and skips by "
            "settings of its own"
        )
    return UserError(
        f"{kind} {reason}{setting}; distributed.strategy=fsdp2 shards weights, gradients and optimizer state "
        "as ZeRO-3 does, and with distributed.reshard_after_forward=false gathers weights once per step as "
        "ZeRO-2 does (docs/scale.md)"
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
