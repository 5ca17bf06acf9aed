"""From experience to optimizer steps; micro-batch size and number of processes change nothing."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.errors import RunEnded
from mm_cpgd.experience import Experience
from mm_cpgd.policy import Policy

# What the objective calls its metrics, and under which names they are logged (docs/metrics.md).
LOGGED = {
    "loss": "objective/loss",
    "penalty": "objective/penalty",
    "policy_drift": "policy/drift",
    "clip_fraction": "policy/clip_fraction",
    "entropy": "policy/entropy",
    "ratio": "policy/ratio_mean",
    "kl": "policy/reference_kl",
    "max/ratio": "policy/ratio_max",
    "min/ratio": "policy/ratio_min",
}


class OptimizerStep:
    """Clips the gradient and steps, unless something is not finite; then the step is skipped and counted.

    Args:
        accelerator: prepared the model and the optimizer.
        parameters: what is trained.
        optimizer: prepared.
        scheduler: stepped once for every optimizer step taken.
        max_grad_norm: of the whole gradient.
        max_skipped: so many skipped steps in a row end the run.
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

    def __call__(self, loss: float) -> dict[str, float]:
        """Take the step; ``loss`` is that of the whole mini-batch over all processes.

        Raises:
            RunEnded: ``max_skipped`` steps in a row were not finite.
        """
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm))
        finite = math.isfinite(norm) and math.isfinite(loss)
        rate = float(self.optimizer.param_groups[0]["lr"])
        if finite:
            self.optimizer.step()
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.max_skipped:
            raise RunEnded(
                f"loss or gradient was not finite in {self.skipped_in_a_row} optimizer steps in a row "
                f"(loss {loss}, gradient norm {norm}); lower training.learning_rate or raise alpha"
            )
        return {
            "optimizer/grad_norm": norm,
            "optimizer/learning_rate": rate,
            "optimizer/skipped": float(not finite),
        }


class Learner:
    """Runs the optimizer steps of one iteration.

    Args:
        accelerator: of the run.
        policy: the bare policy.
        wrapped: the policy as accelerate prepared it; the same object on one process.
        objective: the composition.
        step: takes an optimizer step.
        inner_epochs: passes over the experience.
        micro_batch: rows of a forward pass.
        seed: of the mini-batches' order.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: Policy,
        wrapped: nn.Module,
        objective: Objective,
        step: OptimizerStep,
        *,
        inner_epochs: int,
        micro_batch: int,
        seed: int,
    ) -> None:
        self.accelerator = accelerator
        self.policy = policy
        self.wrapped = wrapped
        self.objective = objective
        self.step = step
        self.inner_epochs = inner_epochs
        self.micro_batch = micro_batch
        self.seed = seed

    def prepare(self, experience: Experience) -> None:
        """Compute the old and the reference log-probabilities that the coming steps need."""
        # The only step of an iteration sees the very policy that sampled: its own values serve as old ones.
        if experience.old_logprobs is None and len(experience.lengths) * self.inner_epochs > 1:
            experience.old_logprobs = self._logprobs(experience, self.wrapped)
        if experience.reference_logprobs is None and self.objective.needs_reference:
            with self.policy.as_reference() as reference:
                experience.reference_logprobs = self._logprobs(experience, reference)

    def learn(self, experience: Experience, iteration: int, done: int = 0) -> Iterator[dict[str, float]]:
        """Yield the metrics of each optimizer step, having passed over the first ``done`` of them."""
        for mini_batch in self._order(len(experience.lengths), iteration)[done:]:
            yield self._mini_batch(experience, mini_batch)

    def _order(self, mini_batches: int, iteration: int) -> list[int]:
        """Every inner epoch visits all mini-batches, in an order that all processes share."""
        rng = random.Random(f"{self.seed}/{iteration}")
        return [
            index for _ in range(self.inner_epochs) for index in rng.sample(range(mini_batches), mini_batches)
        ]

    def _mini_batch(self, experience: Experience, mini_batch: int) -> dict[str, float]:
        parts = experience.micro_batches(mini_batch, self.micro_batch)
        sums: list[dict[str, Tensor]] = []
        for index, rows in enumerate(parts):
            last = index + 1 == len(parts)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                loss, metrics = self._micro_batch(experience, rows, experience.lengths[mini_batch])
                # Data parallel training averages gradients over processes; the objective is a sum.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            sums.append({"loss": loss.detach(), **metrics})
        metrics_of_all = combine(sums, self.accelerator)
        return metrics_of_all | self.step(metrics_of_all["objective/loss"])

    def _micro_batch(
        self, experience: Experience, rows: Tensor, lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward pass and loss of some rows; an empty selection runs a masked stand-in and gives zeros."""
        prompts = experience.row_prompts(rows) or experience.prompts[:1]
        tokens, mask = experience.tokens[rows], experience.mask[rows]
        width = max(int(mask.sum(1).max()) if len(rows) else 1, 1)
        if not len(rows):
            tokens, mask = torch.zeros(1, width, dtype=torch.long), torch.zeros(1, width, dtype=torch.bool)
        tokens, mask = tokens[:, :width], mask[:, :width]
        logprobs, entropy = self.wrapped(prompts, tokens, mask)

        def of(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            return values[rows][:, :width].to(logprobs.device) if len(rows) else torch.zeros_like(logprobs)

        old = of(experience.old_logprobs)
        advantages = experience.advantages[rows] if len(rows) else torch.zeros(1)
        return self.objective.loss(
            logprobs,
            logprobs.detach() if old is None else old,
            advantages.to(logprobs.device),
            mask.to(logprobs.device),
            lengths,
            reference_logprobs=of(experience.reference_logprobs),
            entropy=entropy,
        )

    @torch.no_grad()
    def _logprobs(self, experience: Experience, policy: nn.Module) -> Tensor:
        values = torch.zeros(experience.tokens.shape)
        for mini_batch in range(len(experience.lengths)):
            for rows in experience.micro_batches(mini_batch, self.micro_batch):
                if len(rows):
                    mask = experience.mask[rows]
                    prompts = experience.row_prompts(rows)
                    values[rows] = policy(prompts, experience.tokens[rows], mask)[0].cpu()
        return values


def combine(sums: Sequence[Mapping[str, Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Put the metrics of micro-batches and processes together: sums, but for ``max/…`` and ``min/…``."""
    names = list(sums[0])
    table = torch.stack([torch.stack([part[name].float() for name in names]) for part in sums])
    table = accelerator.gather(table)
    reduce = {"max": torch.amax, "min": torch.amin}
    return {
        LOGGED.get(name, name): float(reduce.get(name.split("/")[0], torch.sum)(table[:, column], 0))
        for column, name in enumerate(names)
    }


def average(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum up an iteration's optimizer steps: means, but extremes of the ratio and the count of skipped."""
    if not steps:
        return {}
    reduce: dict[str, Callable[[list[float]], float]]
    reduce = {"policy/ratio_max": max, "policy/ratio_min": min, "optimizer/skipped": sum}
    return {name: reduce.get(name, fmean)([step[name] for step in steps]) for name in steps[0]}
