"""AdamW with its learning rates, and the schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from mm_cpgd.config import TrainingConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.policy.families import vision_modules


def build_optimizer(policy: Policy, training: TrainingConfig) -> torch.optim.AdamW:
    """Group what is trained: vision tower apart, and no weight decay on vectors (norms, biases).

    Raises:
        UserError: nothing is trained.
    """
    vision = {id(p) for module in vision_modules(policy.model) for p in module.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in policy.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in vision, parameter.ndim >= 2), []).append(parameter)
    if not groups:
        raise UserError("no weight is trained; set policy.freeze_vision=false or give policy.lora")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": (training.vision_learning_rate if is_vision else None) or training.learning_rate,
                "weight_decay": training.weight_decay if decays else 0.0,
            }
            for (is_vision, decays), parameters in groups.items()
        ],
        betas=training.betas,
    )


def build_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig, steps: int) -> Any:
    """Return the learning-rate schedule named in the config, over ``steps`` optimizer steps."""
    try:
        return get_scheduler(
            training.schedule, optimizer, num_warmup_steps=training.warmup_steps, num_training_steps=steps
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"training.schedule={training.schedule!r} is none of transformers' schedules "
            f"(constant, constant_with_warmup, linear, cosine …): {error}"
        ) from error
