"""One iteration's rollouts, scored and turned into experience: the first half of the training step."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from data import Example, PromptSampler
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.errors import UserError
from mm_cpgd.experience import Experience, pad_tokens
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Group, RolloutEngine, Sampling
from mm_cpgd.tracking.rollouts import PromptRollout, ScoredCompletion, ScoredComponent
from rewards import RewardSum, Status
from rewards.combine import Scored

FAILED = (Status.ERROR, Status.TIMEOUT)


@dataclass
class Round:
    """One rollout batch of this process, and the numbers of all processes.

    Attributes:
        indices: dataset index of this process's prompts.
        prompts: encoded, likewise.
        groups: their completions.
        scored: their scores, G for each prompt.
        numbers: (P, G, K) of all processes in prompt order: total reward, length, finished, failed, then
            the score of each rule; NaN where there is none.
    """

    indices: list[int]
    prompts: list[EncodedPrompt]
    groups: list[Group]
    scored: list[list[Scored]]
    numbers: Tensor


@dataclass
class Collected:
    """What ``Collector.collect`` returns: experience for the learner, and what there is to report."""

    experience: Experience
    metrics: dict[str, float]
    rollouts: list[PromptRollout] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


class Collector:
    """Draws prompts, samples completions, scores them and computes advantages.

    Prompt j of an iteration belongs to process j mod W. Draws, seeds and statistics depend on j alone, so
    that any number of processes W sees the same completions and the same advantages.

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
        seed: of the sampled tokens.
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
        seed: int,
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
        self.seed = seed

    def collect(self, iteration: int) -> Collected:
        """Sample until enough prompts are kept or the objective's rounds are used up."""
        started = time.perf_counter()
        self.engine.load_weights(self.policy)
        rounds: list[Round] = []
        seconds_of_rewards = 0.0
        kept = 0
        for _ in range(self.objective.max_rounds):
            one, seconds = self._round(iteration, len(rounds))
            rounds.append(one)
            seconds_of_rewards += seconds
            kept += int(self._keep(one.numbers).sum())
            if kept >= self.prompts:
                break
        numbers = torch.cat([one.numbers for one in rounds])
        experience, advantages = self._experience(rounds, numbers)
        metrics = self._metrics(numbers)
        metrics["groups/rounds"] = float(len(rounds))
        metrics["seconds/reward"] = seconds_of_rewards
        metrics["seconds/rollout"] = time.perf_counter() - started - seconds_of_rewards
        reported = self._rollouts(rounds, advantages) if self.accelerator.is_main_process else []
        examples = [self.examples[index] for one in rounds for index in one.indices]
        return Collected(experience, metrics, reported, examples)

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of a checkpoint's experience again."""
        return [self.policy.encoder.encode(self.examples[index]) for index in indices]

    def _round(self, iteration: int, number: int) -> tuple[Round, float]:
        drawn = self.sampler.take(self.prompts)
        mine = range(self.accelerator.process_index, self.prompts, self.accelerator.num_processes)
        indices = [drawn[slot] for slot in mine]
        prompts = self.reencode(indices)
        seeds = [
            [_seed(self.seed, iteration, number, slot, k) for k in range(self.completions)] for slot in mine
        ]
        with self.accelerator.autocast():
            groups = self.engine.generate(prompts, self.sampling, seeds)
        started = time.perf_counter()
        texts = [completion.text for group in groups for completion in group]
        owners = [self.examples[index] for index in indices for _ in range(self.completions)]
        flat = self.rewards.score(texts, owners)
        seconds = time.perf_counter() - started
        scored = [flat[i : i + self.completions] for i in range(0, len(flat), self.completions)]
        return Round(indices, prompts, groups, scored, self._gather(groups, scored)), seconds

    def _gather(self, groups: list[Group], scored: list[list[Scored]]) -> Tensor:
        """Return (P, G, K) of all processes in prompt order, see ``Round.numbers``."""
        rows = [
            [
                [
                    _number(s.total),
                    c.tokens.numel(),
                    c.finished,
                    any(v.status in FAILED for v in s.components.values()),
                ]
                + [_number(verdict.score) for verdict in s.components.values()]
                for c, s in zip(group, scores, strict=True)
            ]
            for group, scores in zip(groups, scored, strict=True)
        ]
        mine = torch.tensor(rows, dtype=torch.float64, device=self.accelerator.device)
        everyone: Tensor = self.accelerator.gather(mine)
        # Gathered process by process; prompt j sits with process j mod W.
        by_process = everyone.unflatten(0, (self.accelerator.num_processes, -1))
        return by_process.transpose(0, 1).flatten(0, 1).cpu()

    def _keep(self, numbers: Tensor) -> Tensor:
        """Return (P,) bool. The first rule of the config is what selection takes for accuracy."""
        return self.objective.keep(numbers[..., 4], numbers[..., 0])

    def _experience(self, rounds: Sequence[Round], numbers: Tensor) -> tuple[Experience, Tensor]:
        """Return the experience and the advantages (P, G), 0 for prompts that are not kept."""
        keep = self._keep(numbers)
        if self.objective.max_rounds > 1:
            keep &= keep.cumsum(0) <= self.prompts
        lengths = numbers[..., 1]
        shaped = self.objective.shape(numbers[..., 0], lengths)
        advantages = torch.zeros_like(shaped)
        if keep.any():
            advantages[keep] = self.objective.advantages(shaped[keep])
        steps = torch.div(keep.cumsum(0) - 1, self.mini_batch_prompts, rounding_mode="floor")
        usable = keep.unsqueeze(1) & ~shaped.isnan()
        workers = self.accelerator.num_processes
        owner = torch.arange(len(keep)) % self.prompts % workers
        rows_of = [
            [int(usable[(steps == step) & (owner == rank)].sum()) for rank in range(workers)]
            for step in range(int(steps.max()) + 1 if keep.any() else 0)
        ]
        per_step = [lengths[usable & (steps == step).unsqueeze(1)] for step in range(len(rows_of))]
        mine = owner == self.accelerator.process_index
        return self._rows(rounds, usable[mine], advantages[mine], steps[mine], per_step, rows_of), advantages

    def _rows(
        self,
        rounds: Sequence[Round],
        usable: Tensor,
        advantages: Tensor,
        steps: Tensor,
        lengths: list[Tensor],
        rows_of: list[list[int]],
    ) -> Experience:
        """Lay this process's usable completions out as rows; arguments are (p, G) and (p,) of its prompts."""
        groups = [group for one in rounds for group in one.groups]
        prompt_of, place = usable.nonzero(as_tuple=True)
        chosen = [groups[p][k].tokens for p, k in zip(prompt_of.tolist(), place.tolist(), strict=True)]
        tokens, mask = pad_tokens(chosen)
        return Experience(
            examples=[index for one in rounds for index in one.indices],
            prompts=[prompt for one in rounds for prompt in one.prompts],
            prompt_of=prompt_of,
            tokens=tokens,
            mask=mask,
            advantages=advantages[usable].float(),
            mini_batch=steps[prompt_of],
            lengths=[part.float() for part in lengths],
            widest=[max(counts) for counts in rows_of],
        )

    def _metrics(self, numbers: Tensor) -> dict[str, float]:
        """Sum up all completions of the iteration, kept or not."""
        total, lengths, finished, failed = numbers[..., :4].unbind(-1)
        rules = {
            f"reward/{name}": float(numbers[..., 4 + i].nanmean())
            for i, name in enumerate(self.rewards.rules)
        }
        spread = torch.where(total.isnan(), -torch.inf, total).amax(1) - torch.where(
            total.isnan(), torch.inf, total
        ).amin(1)
        scored = total[~total.isnan()]
        return {
            "reward/mean": float(scored.mean()) if len(scored) else float("nan"),
            "reward/std": float(scored.std(correction=0)) if len(scored) else float("nan"),
            **rules,
            "reward/unscored": float(total.isnan().float().mean()),
            "reward/failed": float(failed.mean()),
            "accuracy/train": float(numbers[..., 4].nanmean()),
            "groups/no_signal": float((spread <= 0).float().mean()),
            "groups/kept": float(self._keep(numbers).float().mean()),
            "completion/length_mean": float(lengths.mean()),
            "completion/truncated": float(1 - finished.mean()),
            "tokens/sampled": float(lengths.sum()),
        }

    def _rollouts(self, rounds: Sequence[Round], advantages: Tensor) -> list[PromptRollout]:
        mine = torch.arange(len(advantages)) % self.prompts % self.accelerator.num_processes == 0
        rows = iter(advantages[mine].tolist())
        return [
            _report(self.examples[index], group, scores, next(rows))
            for one in rounds
            for index, group, scores in zip(one.indices, one.groups, one.scored, strict=True)
        ]


def _report(
    example: Example, group: Group, scored: Sequence[Scored], advantages: Sequence[float]
) -> PromptRollout:
    completions = tuple(
        ScoredCompletion(
            text=completion.text,
            tokens=completion.tokens.numel(),
            finished=completion.finished,
            total=score.total,
            advantage=advantage,
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


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
