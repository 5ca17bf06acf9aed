"""Which optimizer step each prompt's completions belong to, the same on all processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MiniBatchPlan:
    """The optimizer steps of one inner epoch.

    Attributes:
        step_of: (P,) of each prompt; what a prompt without usable completions has means nothing.
        lengths: for each step the lengths of its completions, (M_k,) float32, of all processes.
    """

    step_of: Tensor
    lengths: list[Tensor]


def plan_mini_batches(usable: Tensor, lengths: Tensor, prompts_per_step: int) -> MiniBatchPlan:
    """Deal prompts that have usable completions out to steps, in prompt order; the last may get fewer.

    Args:
        usable: (P, G) bool, completions that take part in the update, of all processes.
        lengths: (P, G) tokens.
        prompts_per_step: prompts an optimizer step.
    """
    taking_part = usable.any(1)
    step_of = torch.div(taking_part.cumsum(0) - 1, prompts_per_step, rounding_mode="floor")
    steps = -(-int(taking_part.sum()) // prompts_per_step)
    members = [usable & (step_of == step).unsqueeze(1) for step in range(steps)]
    return MiniBatchPlan(
        step_of=step_of,
        lengths=[lengths[member].float() for member in members],
    )
