"""Collector: one iteration's rollouts, scored and turned into experience (first half of a step)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from data import Example, PromptSampler, ScoredPromptSampler
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.errors import UserError
from mm_cpgd.interrupt import ShouldStop, check, never
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Group, RolloutEngine, Sampling
from mm_cpgd.tracking import PromptRollout, ScoredCompletion, ScoredComponent
from mm_cpgd.training.experience import Collected, Experience, pad_tokens, plan_mini_batches
from mm_cpgd.training.prefetch import PromptsAhead, second_thread
from mm_cpgd.training.rollout_stats import Outcomes, gather_diversity, gather_outcomes
from rewards import RewardSum
from rewards.compose import Scored


@dataclass(frozen=True)
class Round:
    """One rollout batch: the prompts of this process, and the outcomes of all processes.

    Attributes:
        indices: dataset index of each prompt.
        prompts: encoded.
        groups: their completions.
        scored: their scores, G for each prompt.
        outcomes: of the whole batch.
        seconds_of_rewards: time that was waited for scores after the last completion.
    """

    indices: list[int]
    prompts: list[EncodedPrompt]
    groups: list[Group]
    scored: list[list[Scored]]
    outcomes: Outcomes
    seconds_of_rewards: float


class Collector:
    """Draws prompts, samples completions, scores them and computes advantages.

    Prompt j of a rollout batch belongs to process j mod W. Draws, seeds and statistics depend on j alone, so
    that any number of processes W sees the same completions and the same advantages.

    Completions are scored while the next prompts' are sampled. With ``prefetch_to`` the prompts of an
    iteration's first round are encoded while the one before is learned from.

    Args:
        accelerator: of the run.
        policy: encodes prompts.
        engine: samples.
        rewards: scores.
        objective: shapes, selects, and gives advantages.
        examples: training rows.
        sampler: draws them; the same on all processes.
        sampling: how tokens are drawn.
        prompts: P over all processes.
        completions: G.
        mini_batch_prompts: prompts an optimizer step over all processes.
        batch_prompts: prompts of this process between two chances to stop.
        seed: of the sampled tokens.
        keep_logprobs: whether the engine's numerics are not the policy's, so that its log-probabilities are
            to be compared.
        prefetch_to: last iteration whose prompts may be encoded ahead; 0 for none.

    Raises:
        UserError: P cannot be shared out evenly.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: Policy,
        engine: RolloutEngine,
        rewards: RewardSum,
        objective: Objective,
        examples: Sequence[Example],
        sampler: PromptSampler,
        sampling: Sampling,
        *,
        prompts: int,
        completions: int,
        mini_batch_prompts: int,
        batch_prompts: int,
        seed: int,
        keep_logprobs: bool = False,
        prefetch_to: int = 0,
    ) -> None:
        workers = accelerator.num_processes
        if prompts % workers:
            raise UserError(f"rollout.prompts={prompts} must be a multiple of the {workers} processes")
        self.accelerator = accelerator
        self.policy = policy
        self.engine = engine
        self.rewards = rewards
        self.objective = objective
        self.examples = examples
        self.sampler = sampler
        self.sampling = sampling
        self.prompts = prompts
        self.completions = completions
        self.mini_batch_prompts = mini_batch_prompts
        self.batch_prompts = batch_prompts
        self.seed = seed
        self.keep_logprobs = keep_logprobs
        self.prefetch_to = prefetch_to
        self.ahead = PromptsAhead(lambda index: self.reencode([index])[0])

    def collect(self, iteration: int, should_stop: ShouldStop = never) -> Collected:
        """Sample until enough prompts are kept or the objective's rounds are used up.

        Raises:
            Interrupted: between two batches; prompts were drawn that the caller has to put back.
        """
        started = time.perf_counter()
        self.ahead.wait()
        self.engine.load_weights(self.policy)
        rounds = self._rounds(iteration, should_stop)
        outcomes = Outcomes(torch.cat([one.outcomes.values for one in rounds]))
        usable, advantages = self._advantages(outcomes)
        experience = self._experience(rounds, outcomes.lengths, usable, advantages)
        seconds_of_rewards = sum(one.seconds_of_rewards for one in rounds)
        metrics = {
            **outcomes.metrics(list(self.rewards.rules)),
            "groups/kept": float(self._keep(outcomes).double().mean()),
            "groups/rounds": float(len(rounds)),
            "seconds/reward": seconds_of_rewards,
            "seconds/rollout": time.perf_counter() - started - seconds_of_rewards,
        }
        examples = [self.examples[index] for one in rounds for index in one.indices]
        advantages = advantages.masked_fill(~usable, torch.nan)
        if iteration < self.prefetch_to:
            self.ahead.begin(self._own(self.sampler.peek(self.prompts)))
        return Collected(experience, metrics, self._report(rounds, advantages), examples)

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of these examples."""
        return [self.policy.encoder.encode(self.examples[index]) for index in indices]

    def close(self) -> None:
        """End what is done ahead; nothing runs any more."""
        self.ahead.drop()

    def _rounds(self, iteration: int, should_stop: ShouldStop) -> list[Round]:
        rounds: list[Round] = []
        kept = 0
        while len(rounds) < self.objective.max_rounds and kept < self.prompts:
            rounds.append(self._round(iteration, len(rounds), should_stop))
            kept += int(self._keep(rounds[-1].outcomes).sum())
        return rounds

    def _round(self, iteration: int, number: int, should_stop: ShouldStop) -> Round:
        drawn = self.sampler.take(self.prompts)
        indices = self._own(drawn)
        seeds = [
            [_seed(self.seed, iteration, number, slot, k) for k in range(self.completions)]
            for slot in self._own(range(self.prompts))
        ]
        prompts, groups, scored, seconds = self._sample(indices, seeds, should_stop)
        outcomes = gather_outcomes(self.accelerator, groups, scored)
        if self.objective.prompts and isinstance(self.sampler, ScoredPromptSampler):
            diversity = gather_diversity(self.accelerator, groups)
            self.sampler.note(drawn, self.objective.score(outcomes.accuracy, diversity).tolist())
        return Round(indices, prompts, groups, scored, outcomes, seconds)

    def _sample(
        self, indices: Sequence[int], seeds: Sequence[Sequence[int]], should_stop: ShouldStop
    ) -> tuple[list[EncodedPrompt], list[Group], list[list[Scored]], float]:
        """Return prompts, completions and scores, and the seconds that were waited for the scores."""
        prompts = self.ahead.take(indices) or []
        groups: list[Group] = []
        with second_thread("scores") as thread:
            scores = []
            for start in range(0, len(indices), self.batch_prompts):
                check(should_stop)
                part = slice(start, start + self.batch_prompts)
                if len(prompts) == start:
                    prompts += self.reencode(indices[part])
                with self.accelerator.autocast():
                    new = self.engine.generate(prompts[part], self.sampling, seeds[part])
                groups += new
                scores.append(thread.submit(self._score, indices[part], new))
            ended = time.perf_counter()
            scored = [group for chunk in scores for group in chunk.result()]
        return prompts, groups, scored, time.perf_counter() - ended

    def _score(self, indices: Sequence[int], groups: Sequence[Group]) -> list[list[Scored]]:
        texts = [completion.text for group in groups for completion in group]
        owners = [self.examples[index] for index in indices for _ in range(self.completions)]
        flat = self.rewards.score(texts, owners)
        return [flat[i : i + self.completions] for i in range(0, len(flat), self.completions)]

    def _keep(self, outcomes: Outcomes) -> Tensor:
        """Return (P,) bool: prompts that are selected and of which something could be scored."""
        return self.objective.keep(outcomes.accuracy, outcomes.total) & ~outcomes.total.isnan().all(1)

    def _advantages(self, outcomes: Outcomes) -> tuple[Tensor, Tensor]:
        """Return which completions take part in the update, (P, G) bool, and advantages (P, G), else 0."""
        keep = self._keep(outcomes)
        if self.objective.max_rounds > 1:
            keep &= keep.cumsum(0) <= self.prompts
        shaped = self.objective.shape(outcomes.total, outcomes.lengths)
        advantages = torch.zeros_like(shaped)
        if keep.any():
            advantages[keep] = self.objective.advantages(shaped[keep])
        return keep.unsqueeze(1) & ~shaped.isnan(), advantages

    def _experience(
        self, rounds: Sequence[Round], lengths: Tensor, usable: Tensor, advantages: Tensor
    ) -> Experience:
        """Lay this process's usable completions out as rows."""
        owner = self._owner(len(usable))
        plan = plan_mini_batches(usable, lengths, self.mini_batch_prompts)
        mine = owner == self.accelerator.process_index
        groups = [group for one in rounds for group in one.groups]
        slot, place = usable[mine].nonzero(as_tuple=True)
        own = [groups[s][k] for s, k in zip(slot.tolist(), place.tolist(), strict=True)]
        tokens, mask = pad_tokens([one.tokens for one in own])
        logprobs = pad_tokens([one.logprobs for one in own])[0].float() if self.keep_logprobs else None
        # Prompts without a row are let go: their images may be large. One stays, to stand in.
        used = slot.unique().tolist() or [0]
        indices = [index for one in rounds for index in one.indices]
        prompts = [prompt for one in rounds for prompt in one.prompts]
        return Experience(
            examples=[indices[s] for s in used],
            prompts=[prompts[s] for s in used],
            prompt_of=torch.searchsorted(torch.tensor(used), slot),
            tokens=tokens,
            mask=mask,
            advantages=advantages[mine][usable[mine]].float(),
            mini_batch=plan.step_of[mine][slot],
            lengths=plan.lengths,
            sampled_logprobs=logprobs,
        )

    def _own(self, slots: Sequence[int]) -> list[int]:
        """Return this process's part of what there is for each prompt of a rollout batch."""
        return list(slots[self.accelerator.process_index :: self.accelerator.num_processes])

    def _owner(self, count: int) -> Tensor:
        """Return the process (count,) that has each prompt, round after round."""
        return torch.arange(count) % self.prompts % self.accelerator.num_processes

    def _report(self, rounds: Sequence[Round], advantages: Tensor) -> list[PromptRollout]:
        rows = iter(advantages[self._owner(len(advantages)) == self.accelerator.process_index].tolist())
        return [
            _reported(self.examples[index], group, scores, next(rows))
            for one in rounds
            for index, group, scores in zip(one.indices, one.groups, one.scored, strict=True)
        ]


def _reported(
    example: Example, group: Group, scored: Sequence[Scored], advantages: Sequence[float]
) -> PromptRollout:
    """Put a group on record; an advantage that is NaN, because it left the update, as None."""
    completions = tuple(
        ScoredCompletion(
            text=completion.text,
            tokens=completion.tokens.numel(),
            finished=completion.finished,
            total=score.total,
            advantage=None if advantage != advantage else advantage,
            components={
                name: ScoredComponent(verdict.score, verdict.status.value, verdict.extracted, verdict.reason)
                for name, verdict in score.components.items()
            },
        )
        for completion, score, advantage in zip(group, scored, advantages, strict=True)
    )
    return PromptRollout(example.id, example.question, example.answer, completions)


def _seed(*parts: int) -> int:
    """Mix numbers into one seed; neighbouring inputs give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
