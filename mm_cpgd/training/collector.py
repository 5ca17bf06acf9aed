"""Collector: one iteration's rollouts, scored and turned into experience (first half of a step)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor

from data import Example, PromptSampler, ScoredPromptSampler
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.given import EmptyThoughtConfig
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.distributed import together
from mm_cpgd.interrupt import ShouldStop, never
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.rollout import Group, KeptTokens, RolloutEngine, Sampling
from mm_cpgd.rollout.conversations.given import BegunEngine
from mm_cpgd.rollout.conversations.sampler import ConversationSampler, Seeds
from mm_cpgd.rollout.noisy import NoiseSchedule, behind_noise
from mm_cpgd.rollout.parts import EqualCounts
from mm_cpgd.training.ahead.prefetch import (
    Pending,
    PromptPrefetcher,
)
from mm_cpgd.training.experience import Collected, Experience, pad_tokens, plan_mini_batches
from mm_cpgd.training.rollout_stats import RolloutStats, check_rules, gather_diversity, gather_stats
from mm_cpgd.training.rollouts.batches import (
    Rollouts,
    Sampled,
    batch_metrics,
    check_prompts,
    gather_lost,
)
from mm_cpgd.training.rollouts.beside.demonstrations import Demonstrations, Mix
from mm_cpgd.training.rollouts.beside.early import Early, EarlyAnswers
from mm_cpgd.training.rollouts.beside.elsewhere import OtherCompletions, beside
from mm_cpgd.training.rollouts.beside.given import given_facts
from mm_cpgd.training.rollouts.beside.replayed import Replay
from mm_cpgd.training.rollouts.beside.tempered import Further, Tempered
from mm_cpgd.training.rollouts.outcomes import gather_outcomes
from mm_cpgd.training.rollouts.records import records_of
from mm_cpgd.training.rollouts.returns import by_token, credit_of_turns
from mm_cpgd.training.rollouts.sampling import SamplingInBatches
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from mm_cpgd.training.rollouts.seeds import seed_of, turn_seed
from rewards import RewardSum
from rewards.compose import Scored


class Collector:
    """Draws prompts, samples completions, scores them and computes advantages.

    Prompt j of a rollout batch belongs to process j mod W. Draws, seeds and statistics depend on j alone, so
    that completions and advantages are the same for any number of processes W.

    Args:
        rollout: P, G and the sampling settings.
        accelerator: the run's accelerator.
        policy: encodes prompts.
        engine: samples completions.
        rewards: scores them.
        objective: selects prompts, shapes rewards, computes advantages.
        examples: training rows.
        sampler: draws prompts; identical on all processes.
        mini_batch_prompts: prompts per optimizer step, over all processes.
        seed: seed of the sampled tokens.
        prefetch_until: last iteration whose prompts may be encoded during the update before it; 0: none.
        workers: processes that encode prompts; None: this process does.
        conversations: samples conversations with the config's environment; None: a completion is one turn.
        early: asks for answers at budgets of the thinking; None: nothing does.
        begun: given beginning of half of the completions; None: all are sampled whole.
        noise: of the pictures behind which half of the completions are sampled; None: all see the prompt's.
        demonstrations: solutions of the rows, where a part of the objective teaches them; None: none are.
        tempered: further completions at another temperature; None: there are none.
        replay: rows of earlier iterations; None: there are none.

    Raises:
        UserError: P is not a multiple of the number of processes.
    """

    def __init__(
        self,
        rollout: RolloutConfig,
        accelerator: Accelerator,
        policy: Policy,
        engine: RolloutEngine,
        rewards: RewardSum,
        objective: Objective,
        examples: Sequence[Example],
        sampler: PromptSampler,
        *,
        mini_batch_prompts: int,
        seed: int,
        prefetch_until: int = 0,
        workers: PromptWorkers | None = None,
        conversations: ConversationSampler | None = None,
        noise: NoiseSchedule | None = None,
        demonstrations: Demonstrations | None = None,
        tempered: Tempered | None = None,
        replay: Replay | None = None,
        early: EarlyAnswers | None = None,
        begun: EmptyThoughtConfig | None = None,
    ) -> None:
        check_prompts(rollout.prompts, accelerator.num_processes)
        self.config = rollout
        self.accelerator = accelerator
        self.policy = policy
        self.engine = engine
        self.rewards = rewards
        self.conversations, self.noise = conversations, noise
        self.demonstrations, self.tempered, self.replay = demonstrations, tempered, replay
        self.early, self.begun = early, begun
        weights = rollout.environment.scores if conversations and rollout.environment else {}
        gates = rollout.environment.gates if weights and rollout.environment else {}
        self.scorer = CompletionScorer(rewards, weights, gates)
        self.objective = objective
        self.examples = examples
        self.sampler = sampler
        self.mini_batch_prompts = mini_batch_prompts
        self.seed = seed
        self.prefetch_until = prefetch_until
        self.sampling = Sampling(
            rollout.max_new_tokens,
            rollout.temperature,
            rollout.top_p,
            rollout.top_k,
            rollout.min_p,
            min_p_first=rollout.engine == "vllm",
        )
        self.prefetcher = PromptPrefetcher(lambda index: self.reencode([index])[0], examples, workers)

    def collect(
        self, iteration: int, should_stop: ShouldStop = never, sampled: Sampled | None = None
    ) -> Collected:
        """Return one iteration's experience, by the list in ``docs/algorithms.md`` ("The step").

        Args:
            iteration: the running iteration, from 1.
            should_stop: called between two batches of prompts.
            sampled: the iteration's only rollout batch, if it was sampled before.

        Raises:
            Interrupted: between two batches; the caller has to undo the draws of prompts, also after these:
            RuleError, RowsLost, EngineFailed: of a rule on every completion, of all images, of the engine.
        """
        started = time.perf_counter()
        if sampled is None:
            self.prefetcher.wait()
            self.engine.load_weights(self.policy)
        batches: list[Rollouts] = []
        kept = 0
        while len(batches) < self.objective.max_rounds and kept < self.config.prompts:
            batches.append(self.rollout(iteration, len(batches), should_stop, sampled))
            kept += int(self.keep(batches[-1].stats, iteration).sum())
        further = self._further(batches[0], iteration, should_stop)
        if sampled is None:
            self.engine.release()
        stats = RolloutStats(torch.cat([batch.stats.values for batch in batches]))
        lost = gather_lost(stats, batches)
        keep = self.keep(stats, iteration)
        rewards = self.objective.shape(stats.rewards, stats.lengths, iteration=iteration)
        outcomes = self.outcomes(batches, stats, rewards, iteration)
        mix = self.mix(outcomes, self._within_budget(keep))
        advantages = self.advantages(outcomes, mix.learned, mix.factors)
        usable = self.usable(outcomes, mix.learned, advantages)
        credit = self._credit(batches, outcomes, mix.learned, advantages)
        mine = self._mine(len(usable))
        others = [*mix.others, *(further.columns(usable, mine) if further else [])]
        experience = self.experience(batches, outcomes, usable, credit, others)
        metrics = self.metrics(batches, stats, keep, time.perf_counter() - started)
        metrics |= mix.metrics | (further.metrics if further else {})
        metrics |= self._replayed(experience, batches, usable, advantages, iteration)
        self._prefetch(iteration, sampled)
        logged = advantages.masked_fill(~usable, torch.nan)[mine]
        records, examples = records_of(self.examples, batches, logged.tolist())
        return Collected(experience, metrics, records, examples, lost)

    def rollout(
        self, iteration: int, number: int, should_stop: ShouldStop, sampled: Sampled | None = None
    ) -> Rollouts:
        """Draw P prompts, sample and score G completions of each, and gather the statistics.

        Args:
            iteration: the running iteration, from 1.
            number: index of this rollout batch in the iteration, from 0.
            should_stop: called between two batches of prompts.
            sampled: the completions, if there are some already.
        """
        if isinstance(self.sampler, ScoredPromptSampler) and self.objective.scores_rows:
            every = self.objective.row_scores(self.sampler.size, iteration)
            self.sampler.update_scores(range(self.sampler.size), every.tolist())
        drawn = self.sampler.take(self.config.prompts)
        counts = self.objective.counts(drawn, self.config.completions, iteration)
        if sampled is None:
            # Without scores the next draws are known: those of a further batch, or of the next iteration.
            again = number + 1 < self.objective.max_rounds and not self.objective.prompts
            following = self.sampler.peek(self.config.prompts) if again else []
            sampled = together(
                self.accelerator,
                lambda: self.sample(drawn, iteration, number, should_stop, following, counts),
            )
        stats = gather_stats(self.accelerator, sampled.groups, sampled.scored, max(counts))
        check_rules(self.accelerator, sampled.failures, stats.silent_rules(self.scorer.names))
        if isinstance(self.sampler, ScoredPromptSampler) and not self.objective.scores_rows:
            part = self.objective.prompts
            ngram = part.options.get("ngram", 3) if part else 3
            diversity = gather_diversity(self.accelerator, sampled.groups, ngram)
            scores = self.objective.prompt_scores(stats.accuracy, diversity, iteration)
            self.sampler.update_scores(drawn, scores.tolist())
        return Rollouts(**vars(sampled), stats=stats, drawn=drawn)

    def sample(
        self,
        drawn: Sequence[int],
        iteration: int,
        number: int = 0,
        should_stop: ShouldStop = never,
        following: Sequence[int] = (),
        counts: Sequence[int] | None = None,
    ) -> Sampled:
        """Sample and score this process's share of the prompts drawn.

        Neither this nor what it calls waits for other processes, ``should_stop`` aside, so that it may run in
        a thread; one call at a time. Meanwhile processes, if there are any, encode the prompts ``following``.
        ``counts``: completions of each prompt drawn; None: as many for all.
        """
        self.rewards.failures.clear()
        indices = self.own(drawn)
        counts = counts or [self.config.completions] * len(drawn)
        engine = behind_noise(self.engine, self.policy, self.noise, iteration)
        if self.begun:
            engine = BegunEngine(engine, self.policy, self.begun.text, self.begun.max_new_tokens)
        engine = EqualCounts(engine, counts) if len(set(counts)) > 1 else engine
        seeds = [
            [partial(turn_seed, self.seed, iteration, number, slot, k) for k in range(counts[slot])]
            for slot in self.own(range(self.config.prompts))
        ]
        pending = self.prefetcher.take(indices)
        if following and self.prefetcher.in_processes:
            self.prefetcher.begin(self.own(following))
        prompts, groups, scored, lost, seconds, early = self._sample(
            engine, indices, pending, seeds, should_stop
        )
        failures = dict(self.rewards.failures)
        return Sampled(indices, prompts, groups, scored, lost, failures, seconds, early=early)

    def _further(self, batch: Rollouts, iteration: int, should_stop: ShouldStop) -> Further | None:
        """Sample and score completions of the first prompts at the temperature that ``tempered`` asks for."""
        if self.tempered is None or not self.tempered.weight:
            return None
        temperature, most = self.tempered.temperature(self.objective, iteration)
        wanted, count = self.tempered.prompts, self.config.completions
        # All processes have equally many; those beyond are as rows that are lost.
        slots = self.own(range(self.config.prompts))[: -(-wanted // self.accelerator.num_processes)]
        prompts = [batch.prompts[n] if slot < wanted else None for n, slot in enumerate(slots)]
        sampling = replace(self.sampling, temperature=self.sampling.temperature * temperature)
        seed = partial(seed_of, self.seed, iteration, "tempered")
        seeds = [[partial(seed, slot, k) for k in range(count)] for slot in slots]
        known = (batch.indices[: len(slots)], None, seeds, should_stop, sampling, prompts)
        _, groups, scored, *_ = together(self.accelerator, lambda: self._sample(self.engine, *known))
        stats = RolloutStats(gather_stats(self.accelerator, groups, scored, count).values[:wanted])
        return Further(self.tempered, groups, stats, temperature, most)

    def keep(self, stats: RolloutStats, iteration: int = 1) -> Tensor:
        """Return (P,) bool: prompts that the objective selects and of which something could be scored."""
        more = {"lengths": stats.lengths, "finished": stats.finished, "components": stats.components}
        kept = self.objective.keep(stats.accuracy, stats.rewards, more, iteration)
        return kept & ~stats.rewards.isnan().all(1)

    def mix(self, outcomes: Outcomes, keep: Tensor) -> Mix:
        """Return what is learned from: the rollouts of the kept prompts, solutions of rows, or both."""
        found = self.demonstrations
        return Mix(keep) if found is None else found.mix(outcomes, keep, self._mine(len(keep)))

    def advantages(self, outcomes: Outcomes, keep: Tensor, factors: Tensor | None = None) -> Tensor:
        """Return advantages (P, G) of the shaped rewards; 0 for prompts that are not kept."""
        advantages = torch.zeros_like(outcomes.rewards)
        if keep.any():
            kept = outcomes.of(keep)
            advantages[keep] = self.objective.advantages(kept.rewards, kept).to(advantages)
        return advantages if factors is None else advantages * factors.unsqueeze(1)

    def outcomes(
        self, batches: Sequence[Rollouts], stats: RolloutStats, rewards: Tensor, iteration: int
    ) -> Outcomes:
        """Return what is known of the iteration's rollouts over all processes, with shaped rewards."""
        known = (self.accelerator, self.objective, self.scorer, batches, stats, rewards)
        return gather_outcomes(*known, iteration=iteration, seed=self.seed)

    def usable(self, outcomes: Outcomes, keep: Tensor, advantages: Tensor) -> Tensor:
        """Return which completions (P, G) take part in the update: scored, and kept as all parts say."""
        usable = keep.unsqueeze(1) & ~outcomes.rewards.isnan()
        if keep.any():
            usable[keep] &= self.objective.keep_completions(advantages[keep], outcomes.of(keep))
        return usable

    def experience(
        self,
        batches: Sequence[Rollouts],
        outcomes: Outcomes,
        usable: Tensor,
        advantages: Tensor,
        others: Sequence[OtherCompletions] = (),
    ) -> Experience:
        """Return this process's usable completions as rows, each prompt's one after the other.

        Args:
            batches: the iteration's rollout batches.
            outcomes: of all batches and processes.
            usable: (P, G) bool, completions that take part in the update.
            advantages: (P, G), or (P, G, turns) for one per turn.
            others: completions of each other source.
        """
        mine = self._mine(len(usable))
        groups = [group for batch in batches for group in batch.groups]
        columns = beside(usable, outcomes.lengths, advantages, groups, others)
        usable = columns.usable
        plan = plan_mini_batches(usable, columns.lengths, self.mini_batch_prompts, columns.source_of)
        slot, place = usable[mine].nonzero(as_tuple=True)
        own = [columns.completion(*at) for at in zip(slot.tolist(), place.tolist(), strict=True)]
        tokens, mask = pad_tokens([one.tokens for one in own], [one.own for one in own])
        suffixes = [one.talk.suffix if one.talk else None for one in own]
        reweights = self.sampling.has_cuts and self.config.cuts == "reweight"
        sampled_logprobs, kept = None, None
        # The numerics of other engines are not the policy's, so they are compared.
        if self.config.engine != "local" or reweights:
            sampled_logprobs = pad_tokens([one.logprobs for one in own])[0].float()
        if not reweights and own and all(one.kept for one in own):
            kept = KeptTokens.stack([one.kept for one in own if one.kept])
        early = [group for batch in batches for group in batch.early or []]
        given = given_facts(self.early, self.begun, own, early, slot.tolist(), place.tolist())
        # Prompts without a row are dropped: their images may be large. One stays as the stand-in's prompt.
        indices = [index for batch in batches for index in batch.indices]
        prompts = [prompt for batch in batches for prompt in batch.prompts]
        used = slot.unique().tolist() or [s for s, prompt in enumerate(prompts) if prompt][:1]
        return Experience(
            examples=[indices[s] for s in used],
            prompts=[prompt for s in used if (prompt := prompts[s])] or [self.stand_in()],
            prompt_of=torch.searchsorted(torch.tensor(used), slot),
            tokens=tokens,
            mask=mask,
            advantages=by_token(own, columns.advantages[mine][usable[mine]].float()),
            mini_batch=plan.step_of[mine][slot],
            lengths=plan.lengths,
            sampled_logprobs=sampled_logprobs,
            kept=kept,
            suffixes=suffixes if any(suffixes) else None,
            facts=outcomes.facts(usable & mine.unsqueeze(1)) | given,
            outcomes=outcomes if self.objective.memories else None,
            source=columns.source_of[place] if others else None,
            other_lengths=plan.other_lengths,
            given_logprobs=pad_tokens([one.logprobs for one in own])[0].float() if others else None,
        )

    def _credit(
        self, batches: Sequence[Rollouts], outcomes: Outcomes, keep: Tensor, advantages: Tensor
    ) -> Tensor:
        """Return the advantages (P, G, turns) of turns; ``advantages`` where a completion has one."""
        environment = self.config.environment if self.conversations else None
        known = (environment, [batch.groups for batch in batches], outcomes)
        return credit_of_turns(self.accelerator, self.objective, *known, keep, advantages)

    def _replayed(
        self,
        experience: Experience,
        batches: Sequence[Rollouts],
        usable: Tensor,
        advantages: Tensor,
        iteration: int,
    ) -> dict[str, float]:
        """Add rows of earlier iterations; return their metrics."""
        if self.replay is None:
            return {}
        groups, mine = [batch.groups for batch in batches], self._mine(len(usable))
        return self.replay.add(experience, groups, usable, advantages, mine, iteration)

    def _prefetch(self, iteration: int, sampled: Sampled | None) -> None:
        """Begin to encode the next iteration's prompts, if they may be encoded meanwhile."""
        # With ``ahead`` a thread may encode them itself, or have begun them.
        free = not self.config.ahead or (self.prefetcher.in_processes and sampled is None)
        if iteration < self.prefetch_until and free:
            self.prefetcher.begin(self.own(self.sampler.peek(self.config.prompts)))

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of these examples."""
        return [self.policy.encoder.encode(self.examples[index]) for index in indices]

    def discard(self) -> None:
        """Nothing to drop: nothing is sampled before the iteration that learns from it."""

    def close(self) -> None:
        """End the background thread."""
        self.prefetcher.drop()

    def _sample(
        self,
        engine: RolloutEngine,
        indices: Sequence[int],
        pending: Sequence[Pending] | None,
        seeds: Sequence[Sequence[Seeds]],
        should_stop: ShouldStop,
        sampling: Sampling | None = None,
        encoded: Sequence[EncodedPrompt | None] = (),
    ) -> tuple[list[EncodedPrompt | None], list[Group], list[list[Scored]], list[str], float, Early]:
        """See ``SamplingInBatches``; ``sampling`` None: that of the run."""
        known = (self.config.batch_prompts, self.config.completions, self.accelerator, self.policy.encoder)
        chosen = sampling or self.sampling
        run = SamplingInBatches(*known, self.examples, self.scorer, self.conversations, chosen, self.early)
        return run(engine, self.engine, indices, pending, seeds, should_stop, encoded)

    def stand_in(self) -> EncodedPrompt:
        """Return a prompt for a process that has lost all its rows; no completion of it is trained on."""
        return self.policy.encoder.encode(Example("", "", ""))

    def _within_budget(self, keep: Tensor) -> Tensor:
        """Return the kept prompts (P,); of several rollout batches the first ``rollout.prompts`` of them."""
        return keep & (keep.cumsum(0) <= self.config.prompts) if self.objective.max_rounds > 1 else keep

    def metrics(
        self, batches: Sequence[Rollouts], stats: RolloutStats, keep: Tensor, seconds: float
    ) -> dict[str, float]:
        """Return the metrics of the iteration's rollouts."""
        known = (self.accelerator, batches, stats, keep, self.scorer.names, seconds)
        return batch_metrics(
            *known, conversations=self.conversations is not None, early=self.early, mine=self._mine(len(keep))
        )

    def own(self, slots: Sequence[int]) -> list[int]:
        """Return this process's share of one value per prompt of a rollout batch."""
        return list(slots[self.accelerator.process_index :: self.accelerator.num_processes])

    def _mine(self, count: int) -> Tensor:
        """Return which of the prompts (count,), batch after batch, this process holds."""
        owner = torch.arange(count) % self.config.prompts % self.accelerator.num_processes
        return owner == self.accelerator.process_index
