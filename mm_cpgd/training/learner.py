"""Learner: experience to optimizer steps; micro-batch size and number of processes change no result."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mm_cpgd.algorithms.corrections import Correction, importance_weights, weight_metrics
from mm_cpgd.algorithms.inputs.draws import Drawn
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.schema import TrainingConfig
from mm_cpgd.policy import Policy
from mm_cpgd.policy.distribution import KeptTokens, Sampling
from mm_cpgd.policy.sharding.fsdp2 import reshard
from mm_cpgd.policy.visual.changed import PictureChange
from mm_cpgd.rollout.parity import EngineMismatch, ParityGate, compare_logprobs
from mm_cpgd.training.experience import Experience, MicroBatch
from mm_cpgd.training.optimizer import OptimizerStep
from mm_cpgd.training.rollouts.beside.elsewhere import Source, losses_elsewhere
from mm_cpgd.training.rollouts.blind import BlindPictures
from mm_cpgd.training.rollouts.draws import uniforms_of
from mm_cpgd.training.rollouts.whole_batches import gather_columns, prepare_parts
from mm_cpgd.training.rollouts.whole_rows import group_tables, token_advantages

# The objective's names of its metrics, and the names under which they are logged (docs/metrics.md).
METRIC_NAMES = {
    "loss": "objective/loss",
    "penalty": "objective/penalty",
    "policy_drift": "policy/drift",
    "clip_fraction": "policy/clip_fraction",
    "token_weight": "policy/token_weight",
    "drawn_own": "policy/drawn_own",
    "visual_kl": "policy/visual_kl",
    "entropy": "policy/entropy",
    "ratio": "policy/ratio_mean",
    "kl": "policy/reference_kl",
    "max/ratio": "policy/ratio_max",
    "min/ratio": "policy/ratio_min",
    "weight": "rollout/weight_mean",
    "weight_clipped": "rollout/weight_clipped",
    "weight_masked": "rollout/weight_masked",
}


class Learner:
    """Runs the optimizer steps of one iteration.

    Args:
        training: number of inner epochs and size of micro-batches.
        accelerator: the run's accelerator.
        policy: the bare policy.
        wrapped: the policy as accelerate prepared it; the same object on one process.
        objective: the composed objective.
        step: takes one optimizer step.
        seed: seed of the mini-batches' order.
        metric_names: metrics of the objective that are logged, and under which names.
        correction: weights by the ratio π_old / π_sampled; None: no weights.
        parity: compares the log-probabilities of an engine that is not the policy with the old policy's,
            before the first step on a rollout batch; None: there is nothing to compare.
        temperature: of sampling; divides the logits of the policy, the old and the reference policy.
        unreported_cuts: sampling options of an engine that does not report the tokens that its cuts left, if
            the log-probabilities are to be normalised over these.
        reweighted_cuts: those of such an engine, if they are to be over all tokens.
        blind: changes pictures, for parts that compare and for ``policy/visual_kl``; None: as by default.
        visual_kl_every: iterations between measurements of that metric; 0: none.
        sources: of the experience's rows that were not sampled in its iteration, in their numbers' order.
    """

    def __init__(
        self,
        training: TrainingConfig,
        accelerator: Accelerator,
        policy: Policy,
        wrapped: nn.Module,
        objective: Objective,
        step: OptimizerStep,
        *,
        seed: int,
        metric_names: Mapping[str, str] = METRIC_NAMES,
        correction: Correction | None = None,
        parity: ParityGate | None = None,
        temperature: float = 1.0,
        unreported_cuts: Sampling | None = None,
        reweighted_cuts: Sampling | None = None,
        blind: PictureChange | None = None,
        visual_kl_every: int = 0,
        sources: Sequence[Source] = (),
    ) -> None:
        self.config = training
        self.tokens = training.tokens_of_pass(on_gpu=accelerator.device.type != "cpu")
        if objective.blind.gradient:
            self.tokens = max(1, self.tokens // 2)  # each row runs behind both pictures in one pass
        self.accelerator = accelerator
        self.policy = policy
        self.wrapped = wrapped
        self.objective = objective
        self.step = step
        self.seed = seed
        self.sources = sources
        own = (name for source in sources for name in source.metric_names)
        self.metric_names = {**metric_names, **{name: name for name in own}}
        self.correction = correction
        self.parity = parity
        self.temperature = temperature
        self.unreported_cuts = unreported_cuts
        self.reweighted_cuts = reweighted_cuts
        self.blind = BlindPictures(accelerator, policy, blind or PictureChange(), seed, visual_kl_every)

    def update(self, experience: Experience, iteration: int, done: int = 0) -> Iterator[dict[str, float]]:
        """Take the iteration's optimizer steps, by the list in ``docs/algorithms.md`` ("The step").

        Args:
            experience: this process's experience.
            iteration: the running iteration, from 1.
            done: optimizer steps that were taken before the run was interrupted; they are skipped.

        Yields:
            The metrics of each optimizer step.

        Raises:
            Diverged: too many steps in a row were not finite.
            EngineMismatch: the engine sampled from another policy; before the first step.
        """
        fresh = experience.old_logprobs is None
        self.prepare(experience, iteration)
        order = self._order(len(experience.lengths), iteration)
        extra = (
            {} if done else self.blind.metrics(experience, iteration, self.objective.blind, self._logprobs)
        )
        for number, mini_batch in enumerate(order[done:], done):
            micro_batches = self._micro_batches(experience, mini_batch)
            # What was computed just now, and no step has changed, need not be computed again.
            known = experience.old_logprobs if fresh and number == 0 else None
            self.prepare_step(experience, mini_batch, iteration, known)
            sums: list[dict[str, Tensor]] = []
            for rows in micro_batches:
                is_last = len(sums) + 1 == len(micro_batches)
                with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.wrapped):
                    loss, metrics = self._loss(experience, rows, mini_batch, iteration, number)
                    # Data parallel training averages gradients over processes; the objective is a sum.
                    self.accelerator.backward(loss * self.accelerator.num_processes)
                sums.append({"loss": loss.detach(), **metrics})
            total = combine(sums, self.accelerator)
            parity = self._compare(experience, iteration) if number == 0 else {}
            if len(experience.lengths[mini_batch]):
                self.objective.observe(total)
            named = {self.metric_names[name]: total[name] for name in total if name in self.metric_names}
            yield named | self.step(total["loss"]) | parity | (extra if number == 0 else {})

    def prepare(self, experience: Experience, iteration: int, *, ahead: bool = False) -> None:
        """Compute what the update keeps fixed: kept tokens, old and reference log-probabilities, parts.

        Args:
            experience: this process's experience.
            iteration: the iteration that learns from it.
            ahead: whether the policy, which has sampled it, will change before that.
        """
        if self.policy.shared_prefix and self.policy.vision_cache.frozen:
            with self.accelerator.autocast():
                observed = [one for one in experience.suffixes or [] if one is not None]
                self.policy.vision_cache.encode([*experience.prompts, *observed])
        order = self._order(len(experience.lengths), iteration)
        everything = range(len(experience.lengths))
        if experience.kept is None and self.unreported_cuts:
            experience.kept = self._kept_tokens(experience, self.unreported_cuts)
        if experience.kept_mass is None and self.reweighted_cuts:
            experience.kept_mass = self._kept_mass(experience, self.reweighted_cuts)
        if experience.reference_logprobs is None and self.objective.needs_reference:
            with self.policy.as_reference() as reference:
                experience.reference_logprobs = self._evaluate(experience, reference, everything)[0]
        self.blind.prepare(experience, iteration, self.objective.blind, self._logprobs)
        elsewhere = [] if experience.source is None else [one.objective for one in self.sources]
        needing = (self.objective.old_policy_parts, *(one.prepared_parts for one in elsewhere))
        if experience.prepared is None and any(needing):
            experience.old_logprobs, old_entropy = self._evaluate(experience, self.wrapped, everything)
            if self.objective.token_advantages:
                experience.advantages = token_advantages(
                    *(self.objective, experience, old_entropy, self.accelerator, iteration),
                    tokenizer=self.policy.tokenizer,
                )
            seed = f"{self.seed}/{iteration}"
            experience.prepared = prepare_parts(
                self.objective, experience, old_entropy, self.accelerator, seed, iteration, elsewhere
            )
        if experience.old_logprobs is None and (len(order) > 1 or self.parity or ahead):
            # At the first step the policy is still the old one: that step's values serve as the old ones.
            others = [index for index in everything if ahead or index != order[0]]
            experience.old_logprobs = self._evaluate(experience, self.wrapped, others)[0]

    def prepare_step(
        self, experience: Experience, mini_batch: int, iteration: int, known: Tensor | None = None
    ) -> None:
        """Compute what parts need of whole groups at the current policy, before an optimizer step.

        Args:
            experience: this process's experience.
            mini_batch: the mini-batch of the step.
            iteration: the running iteration, from 1.
            known: (n, T) log-probabilities of the current policy, NaN in rows where they are unknown; None:
                everywhere.
        """
        if not self.objective.step_parts:
            return
        own = experience.mini_batch == mini_batch
        # Evaluated by all processes or by none, also by one without a row of this mini-batch.
        if known is None or not self.objective.old_policy_parts:
            known = self._evaluate(experience, self.wrapped, [mini_batch])[0]
        groups, place = group_tables(experience, own, known)
        prepared = dict(experience.prepared or {})
        for where, found in self.objective.prepare_step(groups, iteration).items():
            values = torch.zeros(experience.mask.shape)
            values[own] = found[place].float()[:, None] * experience.mask[own]
            prepared[where] = values
        experience.prepared = prepared

    def _order(self, mini_batches: int, iteration: int) -> list[int]:
        """Return the order of mini-batches over all inner epochs, identical on all processes."""
        rng = random.Random(f"{self.seed}/{iteration}")
        epochs = range(self.config.inner_epochs)
        return [index for _ in epochs for index in rng.sample(range(mini_batches), mini_batches)]

    def _micro_batches(self, experience: Experience, mini_batch: int) -> list[Tensor]:
        """Return the rows of each forward pass; all processes get equally many passes, some without rows."""
        rows = experience.split(mini_batch, self.tokens, shared_prefix=self.policy.shared_prefix)
        count = torch.tensor([len(rows)], device=self.accelerator.device)
        most = int(self.accelerator.gather(count).max())
        return rows + [torch.zeros(0, dtype=torch.long)] * (most - len(rows))

    def _loss(
        self, experience: Experience, rows: Tensor, mini_batch: int, iteration: int, number: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return these rows' share of the loss and the metrics of optimizer step ``number``.

        Where no sampled completion is in the mini-batch, there are no metrics of the objective.
        """
        batch, draws = experience.select(rows), self.objective.draws(iteration)
        both = batch.behind_both() if self.objective.blind.gradient else batch
        logprobs, entropy, *drawn = self.wrapped(
            both.prompts,
            both.tokens,
            both.mask,
            self.objective.needs_entropy_gradient,
            self.temperature,
            both.kept,
            both.suffixes,
            draws and (uniforms_of(experience, rows, draws, self.seed, iteration, number), draws.temperature),
        )
        blind, blind_entropy = batch.blind_logprobs, None
        if both is not batch:
            (logprobs, blind), (entropy, blind_entropy) = logprobs.chunk(2), entropy.chunk(2)
        device = logprobs.device
        old, reference = batch.old_logprobs, batch.reference_logprobs
        if old is not None and old.isnan().any():
            # Whole rows whose values come from this step, or single tokens that an engine gave no number for.
            old = torch.where(old.isnan(), logprobs.detach().float().cpu(), old)
            experience.note_old_logprobs(rows, old)
        old = logprobs.detach() if old is None else old.to(device)
        losses: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        if batch.source is not None:
            others = experience.other_lengths[mini_batch]
            losses, metrics = losses_elsewhere(self.sources, batch, logprobs, old, others, iteration)
        lengths = experience.lengths[mini_batch]
        if not len(lengths):
            return sum(losses[1:], losses[0]), metrics
        mask = batch.sampled_mask.to(device)
        advantages, taking_part, weighting = self._corrected(batch, old, mask, lengths)
        loss, found = self.objective.loss(
            logprobs,
            old,
            advantages,
            mask,
            lengths,
            reference_logprobs=None if reference is None else reference.to(device),
            entropy=entropy,
            prepared=batch.prepared and {name: values.to(device) for name, values in batch.prepared.items()},
            taking_part=taking_part,
            iteration=iteration,
            blind_logprobs=None if blind is None else blind.to(device),
            blind_entropy=blind_entropy,
            drawn=Drawn(*drawn) if drawn else None,
        )
        return sum(losses, loss), found | weighting | metrics

    def _corrected(
        self, batch: MicroBatch, old: Tensor, mask: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return the advantages with their weights, which tokens take part (None: all), and metrics."""
        advantages = batch.advantages.to(old.device)
        if batch.sampled_logprobs is None or self.correction is None:
            return advantages, None, {}
        mass = None if batch.kept_mass is None else batch.kept_mass.to(old.device)
        sampled = batch.sampled_logprobs.to(old.device)
        weights = importance_weights(old, sampled, mask, self.correction, kept_mass=mass)
        by_token = advantages.unsqueeze(1) if advantages.dim() == 1 else advantages
        taking_part = weights.taking_part if self.correction.masks else None
        return by_token * weights.values, taking_part, weight_metrics(weights, mask, lengths, self.correction)

    def probe(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Compare samples, not to be learned from, of the weights that the engine was just sent.

        Raises:
            EngineMismatch: the engine sampled from another policy.
        """
        everything = range(len(experience.lengths))
        experience.old_logprobs = self._evaluate(experience, self.wrapped, everything)[0]
        return self._compare(experience, iteration)

    def _compare(self, experience: Experience, iteration: int) -> dict[str, float]:
        """Return the differences between the log-probabilities of engine and old policy, over all processes.

        By now all of the old policy's are known: those of the first mini-batch from its loss, at which the
        policy still was the old one, and those of the others from before. Samples of earlier weights come
        without the engine's: the policy that could be compared with them is gone. ``probe`` was in time.
        """
        if self.parity is None or experience.sampled_logprobs is None:
            return {}
        gaps, _ = gather_columns(experience.gaps().unsqueeze(0), self.accelerator)
        found = compare_logprobs(gaps[0])
        try:
            self.parity.check(found, iteration)
        except EngineMismatch:
            self.step.optimizer.zero_grad(set_to_none=True)
            raise
        return found.metrics

    @torch.no_grad()
    def _evaluate(
        self, experience: Experience, policy: nn.Module, mini_batches: Iterable[int]
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies (n, T), by the micro-batches and precision of the loss.

        Rows of other mini-batches are NaN.
        """
        values = torch.full((2, *experience.tokens.shape), torch.nan)
        for mini_batch in mini_batches:
            for rows in self._micro_batches(experience, mini_batch):
                batch = experience.select(rows)
                with self.accelerator.autocast():
                    rows_of = (batch.prompts, batch.tokens, batch.mask)
                    options = (False, self.temperature, batch.kept, batch.suffixes)
                    found = torch.stack(policy(*rows_of, *options))
                if len(rows):
                    values[:, rows] = 0.0
                    values[:, rows, : found.shape[2]] = found.cpu()
        reshard(policy)
        return values[0], values[1]

    def _logprobs(self, experience: Experience, mini_batches: Iterable[int]) -> Tensor:
        """Return the log-probabilities of ``_evaluate`` by the policy."""
        return self._evaluate(experience, self.wrapped, mini_batches)[0]

    def _kept_tokens(self, experience: Experience, sampling: Sampling) -> KeptTokens:
        """Return the tokens that the cuts leave of the old policy, by the micro-batches of the loss."""
        found: list[KeptTokens | None] = [None] * len(experience)
        for mini_batch in range(len(experience.lengths)):
            for rows in self._micro_batches(experience, mini_batch):
                batch = experience.select(rows)
                with self.accelerator.autocast():
                    kept = self.policy.kept_tokens(
                        batch.prompts, batch.tokens, batch.mask, sampling, batch.suffixes
                    )
                for place, row in enumerate(rows.tolist()):
                    found[row] = kept.select(torch.tensor([place]), kept.counts.shape[1])
        reshard(self.policy)
        return KeptTokens.stack([one for one in found if one is not None])

    def _kept_mass(self, experience: Experience, sampling: Sampling) -> Tensor:
        """Return ln of the probability (n, T) that the cuts leave of the old policy, likewise."""
        values = torch.zeros(experience.tokens.shape)
        for mini_batch in range(len(experience.lengths)):
            for rows in self._micro_batches(experience, mini_batch):
                batch = experience.select(rows)
                with self.accelerator.autocast():
                    found = self.policy.kept_mass(
                        batch.prompts, batch.tokens, batch.mask, sampling, batch.suffixes
                    )
                if len(rows):
                    values[rows, : found.shape[1]] = found
        reshard(self.policy)
        return values


def combine(sums: Sequence[Mapping[str, Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Return metrics summed over micro-batches and processes; extremes for ``max/…`` and ``min/…``."""
    names = list(sums[0])
    table = torch.stack([torch.stack([part[name].float() for name in names]) for part in sums])
    table = accelerator.gather(table)
    reduce = {"max": torch.amax, "min": torch.amin}
    return {
        name: float(reduce.get(name.split("/")[0], torch.sum)(table[:, column], 0))
        for column, name in enumerate(names)
    }


def average(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means over an iteration's optimizer steps; extremes of the ratio, the sum of skipped steps.

    A name that not all steps have is averaged over those that have it; what only the first has is of the
    whole iteration.
    """
    if not steps:
        return {"optimizer/skipped": 0.0}
    reduce: dict[str, Callable[[list[float]], float]]
    reduce = {
        "policy/ratio_max": max,
        "policy/ratio_min": min,
        "optimizer/skipped": sum,
    }
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: reduce.get(name, fmean)([step[name] for step in steps if name in step]) for name in names}
