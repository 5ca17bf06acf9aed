"""Optimizer step: clips the gradient, skips what is not finite, and measures which weights change."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.policy.sharding.tensors import (
    clip_gradients,
    is_sharded,
    local_value,
    sample_values,
    sum_over_processes,
)

# Settings from which the learning rates follow, and those that set their course over the run's steps.
RATES = {"training.learning_rate", "training.vision_learning_rate"}
SCHEDULE = {
    "training.schedule",
    "training.warmup_steps",
    "training.iterations",
    "training.inner_epochs",
    "training.mini_batch_prompts",
    "rollout.prompts",
    "sft.steps",
    "sft.epochs",
    "sft.batch",
}


class Diverged(Exception):
    """Too many optimizer steps in a row were not finite."""


# Weights of each parameter whose change is measured.
SAMPLED_WEIGHTS = 1024
# Below this share of changed weights, training in a reduced precision mostly rounds its steps away.
MOSTLY_LOST = 0.5


class ChangedWeights:
    """Share of the weights that an optimizer step changes; a step below the format's resolution is lost.

    A bfloat16 weight w changes only by steps of at least |w| / 512: AdamW's first steps have the size of the
    learning rate, so that at 1e-6 only weights below 5e-4 move. Evenly spaced weights of each parameter are
    compared, so the share depends on nothing but the step, and is the same on all processes.

    Args:
        parameters: the trained parameters.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._moving: list[nn.Parameter] = []
        self._before = self._gradients = torch.zeros(0)

    @property
    def reduced(self) -> list[torch.dtype]:
        """Number formats of trained weights with less precision than float32."""
        kinds = {parameter.dtype for parameter in self.parameters if parameter.element_size() < 4}
        return sorted(kinds, key=str)

    def before(self) -> None:
        """Note the weights; called with the gradients of the step."""
        self._moving = [parameter for parameter in self.parameters if parameter.grad is not None]
        self._before = _sample(self._moving, self._moving)
        self._gradients = _sample([parameter.grad for parameter in self._moving], self._moving)

    def after(self) -> float:
        """Return the share of those with a gradient that the step changed, in thousandths; 0 if none has one.

        Whether a single weight at the limit moves depends on rounding, as of sums over processes.
        """
        moves = self._gradients != 0
        changed = (_sample(self._moving, self._moving) != self._before) & moves
        counts = torch.stack([changed.sum(), moves.sum()])
        count, moving = sum_over_processes(counts, self.parameters).tolist()
        return round(count / moving, 3) if moving else 0.0


def _sample(tensors: Sequence[Any], parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return what this process holds of evenly spaced values of each tensor, one after the other (n,).

    Args:
        tensors: weights or gradients; of each up to ``SAMPLED_WEIGHTS`` values are taken, over all processes.
        parameters: the parameters that they belong to.
    """
    if not tensors:
        return torch.zeros(0)
    pairs = zip(tensors, parameters, strict=True)
    return torch.cat([sample_values(local_value(one), own, SAMPLED_WEIGHTS) for one, own in pairs])


class OptimizerStep:
    """Clips the gradient and steps; a step with a non-finite loss or gradient is skipped and counted.

    Args:
        accelerator: the accelerator that prepared the model and the optimizer.
        parameters: the trained parameters.
        optimizer: the prepared optimizer.
        scheduler: stepped once for every optimizer step taken.
        max_grad_norm: limit of the norm of the whole gradient.
        max_skipped: number of skipped steps in a row that ends the run.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        parameters: Sequence[nn.Parameter],
        optimizer: Any,
        scheduler: Any,
        max_grad_norm: float,
        max_skipped: int,
    ) -> None:
        self.accelerator = accelerator
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.max_grad_norm = max_grad_norm
        self.max_skipped = max_skipped
        self.skipped_in_a_row = 0
        self.changed = ChangedWeights(self.parameters)
        self._warned = False

    def __call__(self, loss: float) -> dict[str, float]:
        """Take a step and return its metrics; ``loss`` is that of the mini-batch over all processes.

        Raises:
            Diverged: ``max_skipped`` steps in a row were not finite.
        """
        norm = self._clip()
        finite = math.isfinite(norm) and math.isfinite(loss)
        rate = float(self.optimizer.param_groups[0]["lr"])
        changed = 0.0
        if finite:
            self.changed.before()
            self.optimizer.step()
            changed = self.changed.after()
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.max_skipped:
            raise Diverged(
                f"loss or gradient was not finite in {self.skipped_in_a_row} optimizer steps in a row "
                f"(loss {loss:g}, gradient norm {norm:g}); lower training.learning_rate or "
                "training.max_grad_norm, or raise the policy drift's alpha"
            )
        return {
            "optimizer/grad_norm": norm,
            "optimizer/learning_rate": rate,
            "optimizer/skipped": float(not finite),
            "optimizer/weights_changed": changed,
        }

    def _clip(self) -> float:
        """Clip the gradient; return its norm before."""
        if any(is_sharded(parameter) for parameter in self.parameters):
            return clip_gradients(self.parameters, self.max_grad_norm)
        return float(self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm))

    def settings(self) -> list[dict[str, Any]]:
        """Return what the config says of each parameter group; of a step that has loaded no state yet."""
        keys = ("weight_decay", "betas")
        groups = zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True)
        return [{key: group[key] for key in keys} | {"base_lr": rate} for group, rate in groups]

    def apply(self, settings: Sequence[Mapping[str, Any]], changed: Collection[str]) -> None:
        """Let settings take effect that have changed since the loaded state was saved; leave the others.

        A new learning rate replaces the old one and every factor that the guard has put on it.

        Args:
            settings: those of the config, as ``settings`` returned them before loading.
            changed: dotted names of the settings that have changed.
        """
        if RATES & set(changed):
            self.scheduler.base_lrs = [own["base_lr"] for own in settings]
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            for key in ("weight_decay", "betas"):
                if f"training.{key}" in changed:
                    group[key] = own[key]
        if (RATES | SCHEDULE) & set(changed):
            scheduler = self.scheduler
            pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            rates = [rate * factor(scheduler.last_epoch) for rate, factor in pairs]
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates

    def lost_steps(self, metrics: Mapping[str, float]) -> str | None:
        """Return a warning if an iteration's steps were mostly rounded away; once, None otherwise.

        Args:
            metrics: means over the optimizer steps of the iteration.
        """
        share = metrics.get("optimizer/weights_changed", math.nan)
        names = ("optimizer/learning_rate", "optimizer/grad_norm")
        stepped = all(metrics.get(name, 0.0) > 0 for name in names) and not metrics.get("optimizer/skipped")
        moved = math.isnan(share) or share >= MOSTLY_LOST
        bare = getattr(self.optimizer, "optimizer", self.optimizer)  # without accelerate's wrapper
        at_random = getattr(bare, "rounds_at_random", False)
        if self._warned or moved or not stepped or at_random or not self.changed.reduced:
            return None
        self._warned = True
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in self.changed.reduced)
        return (
            f"WARNING: an optimizer step changes {share:.1%} of the trained {kinds} weights; at this rate "
            "the others stay as they are: the step is below the resolution of their number format. Set "
            "policy.dtype=float32, which keeps the weights in float32 while training.mixed_precision=bf16 "
            "computes in bfloat16; or training.rounding=stochastic, with which steps are kept on average; or "
            "train adapters, which are float32, with policy.lora"
        )

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply all learning rates, now and for the rest of the schedule; forget skipped steps."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        self.scheduler.base_lrs = [rate * factor for rate in self.scheduler.base_lrs]
        self.skipped_in_a_row = 0
