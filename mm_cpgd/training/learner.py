"""Learner: experience to optimizer steps; micro-batch size and number of processes change no result."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import log
from statistics import fmean

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.policy import Policy
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.optimizer import OptimizerStep

# What the objective calls its metrics, and under which names they are logged (docs/metrics.md).
LOGGED = {
    "loss": "objective/loss",
    "penalty": "objective/penalty",
    "policy_drift": "policy/drift",
    "clip_fraction": "policy/clip_fraction",
    "token_weight": "policy/token_weight",
    "entropy": "policy/entropy",
    "ratio": "policy/ratio_mean",
    "kl": "policy/reference_kl",
    "max/ratio": "policy/ratio_max",
    "min/ratio": "policy/ratio_min",
    "logprob_difference": "rollout/logprob_difference_mean",
    "max/logprob_difference": "rollout/logprob_difference_max",
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
        micro_batch_tokens: of a forward pass.
        seed: of the mini-batches' order.
        logged: which of the objective's metrics are logged, and under which names.
        importance_cap: weight tokens by π_old over the sampling engine's probability, cut here; None: do not.
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
        micro_batch_tokens: int,
        seed: int,
        logged: Mapping[str, str] = LOGGED,
        importance_cap: float | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.policy = policy
        self.wrapped = wrapped
        self.objective = objective
        self.step = step
        self.inner_epochs = inner_epochs
        self.micro_batch_tokens = micro_batch_tokens
        self.seed = seed
        self.logged = logged
        self.importance_cap = importance_cap

    def prepare(self, experience: Experience, iteration: int) -> None:
        """Compute what the coming steps need: features of images, old and reference log-probabilities."""
        if self.policy.shared_prefix and self.policy.sight.frozen:
            with self.accelerator.autocast():
                self.policy.sight.look(experience.prompts)
        order = self._order(len(experience.lengths), iteration)
        everything = range(len(experience.lengths))
        if experience.prepared is None and self.objective.prepared_parts:
            experience.old_logprobs, entropy = self._ask(experience, self.wrapped, everything)
            experience.prepared = prepare_parts(
                self.objective, experience, entropy, self.accelerator, f"{self.seed}/{iteration}"
            )
        if experience.old_logprobs is None and len(order) > 1:
            # The first step sees the very policy that sampled: its own values serve as the old ones.
            others = [index for index in everything if index != order[0]]
            experience.old_logprobs = self._ask(experience, self.wrapped, others)[0]
        if experience.reference_logprobs is None and self.objective.needs_reference:
            with self.policy.as_reference() as reference:
                experience.reference_logprobs = self._ask(experience, reference, everything)[0]

    def learn(self, experience: Experience, iteration: int, done: int = 0) -> Iterator[dict[str, float]]:
        """Yield the metrics of each optimizer step, having passed over the first ``done`` of them.

        Raises:
            Diverged: too many steps in a row were not finite.
        """
        for mini_batch in self._order(len(experience.lengths), iteration)[done:]:
            yield self._mini_batch(experience, mini_batch)

    def _order(self, mini_batches: int, iteration: int) -> list[int]:
        """Every inner epoch visits all mini-batches, in an order that all processes share."""
        rng = random.Random(f"{self.seed}/{iteration}")
        return [
            index for _ in range(self.inner_epochs) for index in rng.sample(range(mini_batches), mini_batches)
        ]

    def _mini_batch(self, experience: Experience, mini_batch: int) -> dict[str, float]:
        """Accumulate the gradient over micro-batches and take the step."""
        parts = self._parts(experience, mini_batch)
        sums: list[dict[str, Tensor]] = []
        for index, rows in enumerate(parts):
            last = index + 1 == len(parts)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                loss, metrics = self._loss(experience, rows, experience.lengths[mini_batch])
                # Data parallel training averages gradients over processes; the objective is a sum.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            sums.append({"loss": loss.detach(), **metrics})
        total = combine(sums, self.accelerator)
        self.objective.observe(total)
        return {self.logged[name]: total[name] for name in total if name in self.logged} | self.step(
            total["loss"]
        )

    def _parts(self, experience: Experience, mini_batch: int) -> list[Tensor]:
        """Return the rows of each forward pass: equally many passes on all processes, some without rows."""
        parts = experience.split(mini_batch, self.micro_batch_tokens, shared_prefix=self.policy.shared_prefix)
        count = torch.tensor([len(parts)], device=self.accelerator.device)
        most = int(self.accelerator.gather(count).max())
        return parts + [torch.zeros(0, dtype=torch.long)] * (most - len(parts))

    def _loss(
        self, experience: Experience, rows: Tensor, lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return these rows' share of the mini-batch's loss, and of its metrics."""
        part = experience.select(rows)
        logprobs, entropy = self.wrapped(
            part.prompts, part.tokens, part.mask, self.objective.needs_entropy_gradient
        )
        device = logprobs.device
        old, reference = part.old_logprobs, part.reference_logprobs
        if old is not None and old.isnan().any():
            experience.note_old_logprobs(rows, logprobs.detach())
            old = None
        old = logprobs.detach() if old is None else old.to(device)
        mask, advantages = part.mask.to(device), part.advantages.to(device)
        engine: dict[str, Tensor] = {}
        if part.sampled_logprobs is not None:
            sampled = part.sampled_logprobs.to(device)
            engine = logprob_difference(old, sampled, mask, lengths)
            if self.importance_cap is not None:
                weights = truncated_weights(old, sampled, mask, self.importance_cap)
                advantages = advantages.unsqueeze(1) * weights
        loss, metrics = self.objective.loss(
            logprobs,
            old,
            advantages,
            mask,
            lengths,
            reference_logprobs=None if reference is None else reference.to(device),
            entropy=entropy,
            prepared=part.prepared and {name: values.to(device) for name, values in part.prepared.items()},
        )
        return loss, metrics | engine

    @torch.no_grad()
    def _ask(
        self, experience: Experience, policy: nn.Module, mini_batches: Iterable[int]
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies (n, T), in the micro-batches and precision of the loss's.

        They are NaN for the rows of other mini-batches.
        """
        values = torch.full((2, *experience.tokens.shape), torch.nan)
        for mini_batch in mini_batches:
            for rows in self._parts(experience, mini_batch):
                part = experience.select(rows)
                with self.accelerator.autocast():
                    found = torch.stack(policy(part.prompts, part.tokens, part.mask))
                if len(rows):
                    values[:, rows] = 0.0
                    values[:, rows, : found.shape[2]] = found.cpu()
        return values[0], values[1]


def combine(sums: Sequence[Mapping[str, Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Put the metrics of micro-batches and processes together: sums, but for ``max/…`` and ``min/…``."""
    names = list(sums[0])
    table = torch.stack([torch.stack([part[name].float() for name in names]) for part in sums])
    table = accelerator.gather(table)
    reduce = {"max": torch.amax, "min": torch.amin}
    return {
        name: float(reduce.get(name.split("/")[0], torch.sum)(table[:, column], 0))
        for column, name in enumerate(names)
    }


def average(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum up an iteration's optimizer steps: means, but extremes of the ratio and the count of skipped."""
    if not steps:
        return {"optimizer/skipped": 0.0}
    reduce: dict[str, Callable[[list[float]], float]]
    reduce = {
        "policy/ratio_max": max,
        "policy/ratio_min": min,
        "rollout/logprob_difference_max": max,
        "optimizer/skipped": sum,
    }
    return {name: reduce.get(name, fmean)([step[name] for step in steps]) for name in steps[0]}


@torch.no_grad()
def logprob_difference(old: Tensor, sampled: Tensor, mask: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Return these rows' part of the mean of |old - sampled| over a mini-batch's tokens, and the maximum.

    Args:
        old: (n, T) by the trainer.
        sampled: (n, T) by the engine.
        mask: (n, T) True where a token is the completion's own.
        lengths: (M,) completion lengths of the whole mini-batch.
    """
    gap = (old - sampled).abs().masked_fill(~mask, 0.0)
    return {
        "logprob_difference": gap.sum() / lengths.sum().clamp(min=1).to(gap.device),
        "max/logprob_difference": gap.amax(),
    }


@torch.no_grad()
def truncated_weights(old: Tensor, sampled: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Return min(π_old / π_sampled, cap) for each token, (n, T): truncated importance sampling.

    Source: Ionides 2008 (Journal of Computational and Graphical Statistics 17); for rollout engines Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training". 1 where the mask is
    False or the engine gave no number.
    """
    ratio = (old - sampled).clamp(max=log(cap)).exp()
    return ratio.where(mask & ~ratio.isnan(), torch.ones_like(ratio))


def prepare_parts(
    objective: Objective, experience: Experience, old_entropy: Tensor, accelerator: Accelerator, seed: str
) -> dict[str, Tensor]:
    """Ask the objective's parts what they need to know of each mini-batch.

    Args:
        objective: with ``prepared_parts``.
        experience: of this process, its ``old_logprobs`` complete.
        old_entropy: (n, T) of the policy that sampled.
        accelerator: of the run.
        seed: of random choices, the same on all processes.

    Returns:
        ``Part.where`` to (n, T), 0 where the mask is False.
    """
    assert experience.old_logprobs is not None
    advantages = experience.advantages[:, None].expand(experience.mask.shape)
    values = torch.stack([experience.old_logprobs, old_entropy, advantages])
    prepared = {part.where: torch.zeros(experience.mask.shape) for part in objective.prepared_parts}
    for mini_batch in range(len(experience.lengths)):
        here = experience.mask & (experience.mini_batch == mini_batch)[:, None]
        everyones, own = gather_columns(values[:, here], accelerator)
        number = random.Random(f"{seed}/{mini_batch}").getrandbits(62)
        # In float64 the order of processes leaves no trace in means.
        old_logprobs, entropy, advantage = everyones.double()
        for where, found in objective.prepare(old_logprobs, entropy, advantage, number).items():
            prepared[where][here] = found[own].float()
    return prepared


def gather_columns(values: Tensor, accelerator: Accelerator) -> tuple[Tensor, slice]:
    """Put the columns of all processes side by side.

    Args:
        values: (R, k), k may differ by process.
        accelerator: of the run.

    Returns:
        (R, K) on the CPU, and which columns are this process's.
    """
    counts = accelerator.gather(torch.tensor([values.shape[1]], device=accelerator.device)).tolist()
    padded = torch.zeros(1, len(values), max(counts), device=accelerator.device)
    padded[0, :, : values.shape[1]] = values
    gathered = accelerator.gather(padded).cpu()
    everyones = torch.cat([own[:, :count] for own, count in zip(gathered, counts, strict=True)], 1)
    start = sum(counts[: accelerator.process_index])
    return everyones, slice(start, start + values.shape[1])
