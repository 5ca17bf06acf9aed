"""Construction of the optimizer and its learning-rate schedule from the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mm_cpgd.config.schema import TrainingConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.policy.families import vision_parameters
from mm_cpgd.policy.sharding.tensors import is_sharded
from mm_cpgd.policy.support import check_head
from mm_cpgd.training.optimizer.compact import CompactAdamW
from mm_cpgd.training.optimizer.moments import EIGHT_BIT_PACKAGE, eight_bit_available


def build_optimizer(policy: Policy, training: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW with separate groups for the vision tower, and no weight decay on norms and biases.

    Raises:
        UserError: no parameter is trained, the model folder brought its own adapters, it has no head, or the
            config's optimizer is not for these weights.
    """
    if getattr(policy.model, "_hf_peft_config_loaded", False):
        # They would be frozen, and peft would save them alone, without what was trained.
        raise UserError(
            f"policy.model={policy.model.name_or_path!r} holds adapters (adapter_config.json) beside its "
            "weights; merge them into the weights (peft: merge_and_unload, then save_pretrained), and train "
            "the merged model"
        )
    check_head(policy.model.name_or_path, policy.model)
    vision = {id(parameter) for parameter in vision_parameters(policy.model)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in policy.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in vision, parameter.ndim >= 2), []).append(parameter)
    if not groups:
        raise UserError("no weight is trained; set policy.freeze_vision=false or give policy.lora")
    settings = [
        {
            "params": parameters,
            "lr": (training.vision_learning_rate if is_vision else None) or training.learning_rate,
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for (is_vision, decays), parameters in groups.items()
    ]
    trained = [parameter for parameters in groups.values() for parameter in parameters]
    if is_compact(training):
        check_compact(training, trained)
        return CompactAdamW(
            settings,
            betas=training.betas,
            eight_bit=training.optimizer == "adamw_8bit",
            stochastic=training.rounding == "stochastic",
            offload=training.offload_moments,
        )
    # One operation for each weight in place of a dozen, where torch has it.
    fused = not any(is_sharded(one) for one in trained) and (
        all(one.device.type == "cuda" for one in trained)
        or all(one.device.type == "cpu" and one.dtype == torch.float32 for one in trained)
    )
    return torch.optim.AdamW(settings, betas=training.betas, fused=fused or None)


def is_compact(training: TrainingConfig) -> bool:
    """Return whether the config asks for what torch's AdamW does not have."""
    wanted = training.optimizer != "adamw" or training.rounding == "stochastic"
    return wanted or training.offload_moments


def check_compact(training: TrainingConfig, trained: Sequence[nn.Parameter]) -> None:
    """Check that the settings of ``CompactAdamW`` are for these weights.

    Raises:
        UserError: weights are sharded, none is bfloat16 to be rounded, or a package is missing.
    """
    if any(is_sharded(parameter) for parameter in trained):
        raise UserError(
            "training.optimizer=adamw_8bit, rounding=stochastic and offload_moments are for whole weights; "
            "distributed.strategy=fsdp2 divides weights and moments among the processes, and "
            "distributed.cpu_offload=true keeps them in CPU memory: leave these settings out"
        )
    if training.rounding == "stochastic" and all(one.dtype != torch.bfloat16 for one in trained):
        raise UserError(
            "training.rounding=stochastic is for bfloat16 weights, and all trained weights are float32; set "
            "policy.dtype=bfloat16 without policy.lora, or leave training.rounding out"
        )
    if training.optimizer == "adamw_8bit" and not eight_bit_available():
        raise UserError(
            f"training.optimizer=adamw_8bit needs {EIGHT_BIT_PACKAGE}: pip install {EIGHT_BIT_PACKAGE}; or "
            "set training.optimizer=adamw with offload_moments=true, which needs as little memory of the GPU"
        )


def build_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig, steps: int) -> Any:
    """Return the learning-rate schedule named in the config.

    Args:
        optimizer: the optimizer before accelerate prepares it.
        training: ``schedule`` and ``warmup_steps``, in optimizer steps.
        steps: upper bound of the run's optimizer steps: selection may leave an iteration with fewer.

    Raises:
        UserError: transformers has no such schedule, or one that needs more than these numbers.
    """
    name = training.schedule
    if name == "constant" and not training.warmup_steps:
        return LambdaLR(optimizer, lambda step: 1.0)
    # Imports transformers' trainer, and with it every package that it can use.
    from transformers import get_scheduler

    if name == "constant":
        name = "constant_with_warmup"  # transformers' plain constant would drop the warm-up silently
    try:
        if name == "reduce_lr_on_plateau":
            raise ValueError("it needs a metric to watch")
        return get_scheduler(
            name, optimizer, num_warmup_steps=training.warmup_steps, num_training_steps=steps
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"training.schedule={training.schedule!r} cannot be used: {error}; choose constant, linear, "
            "cosine, polynomial or inverse_sqrt"
        ) from error
