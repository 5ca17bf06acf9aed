"""Supervised fine-tuning: worked solutions as experience for the same learner as reinforcement learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from data import Example, PromptSampler
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.part_info import description_of
from mm_cpgd.algorithms.parts import PARTS
from mm_cpgd.config.schema import AlgorithmConfig, PartConfig, SftConfig
from mm_cpgd.errors import UserError
from mm_cpgd.interrupt import ShouldStop, never
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.rollout import Completion
from mm_cpgd.training.ahead.prefetch import PromptPrefetcher, encode_rows, lost_line
from mm_cpgd.training.experience import Collected, Experience, RowsLost, pad_tokens
from mm_cpgd.training.rollouts.written import WrittenConversations, turn_tokens, turns_of_row

# Old log-probabilities are set to 0, so ratio and drift mean nothing and are not logged.
SFT_METRIC_NAMES = {"loss": "sft/loss", "entropy": "policy/entropy", "drawn_own": "policy/drawn_own"}


LIKELIHOOD = PartConfig(name="policy_gradient")
"""The surrogate whose mean with A = 1 is the log-likelihood."""


def sft_objective(surrogate: PartConfig, max_new_tokens: int, steps: int = 1) -> Objective:
    """Return the objective of fine-tuning: the mean over the solutions' tokens of the surrogate with A = 1.

    Args:
        surrogate: ``policy_gradient`` for the log-likelihood.
        max_new_tokens: longest solution.
        steps: of the whole run, over which its schedules move.

    Raises:
        UserError: the surrogate compares with an old policy, or it cannot be built.
    """
    config = AlgorithmConfig(
        advantage=PartConfig(name="group_mean"),
        surrogate=surrogate,
        aggregation=PartConfig(name="token_mean"),
    )
    # No advantage is ever computed from a group here; 2 satisfies the check of the group baseline.
    objective = build_objective(config, completions=2, max_new_tokens=max_new_tokens, iterations=steps)
    if not objective.surrogate.description.without_old:
        possible = [name for name, part in PARTS["surrogate"].items() if description_of(part).without_old]
        raise UserError(
            f"sft.surrogate: {surrogate.name} compares with the policy that sampled, and solutions are not "
            f"sampled; possible: {', '.join(possible)}, and parts of your own that are declared with "
            "@described(…, without_old=True)"
        )
    return objective


class SftSource:
    """Draws examples and returns their solutions as experience, in place of the collector.

    Args:
        sft: batch size and target template.
        accelerator: the run's accelerator.
        policy: encodes prompts and tokenizes solutions.
        examples: rows with solutions.
        sampler: draws examples; identical on all processes.
        workers: processes that encode the next batch's prompts meanwhile; None: there are none.
        steps: of the whole run, after which no batch is encoded.
        written: plays the conversations of rows that write their turns; None: there is no environment.

    Raises:
        UserError: the batch is not a multiple of the number of processes.
    """

    def __init__(
        self,
        sft: SftConfig,
        accelerator: Accelerator,
        policy: Policy,
        examples: Sequence[Example],
        sampler: PromptSampler,
        workers: PromptWorkers | None = None,
        steps: int = 0,
        written: WrittenConversations | None = None,
    ) -> None:
        if sft.batch % accelerator.num_processes:
            raise UserError(
                f"sft.batch={sft.batch} must be a multiple of the {accelerator.num_processes} processes"
            )
        self.accelerator = accelerator
        self.policy = policy
        self.examples = examples
        self.sampler = sampler
        self.config = sft
        self.steps = steps
        self.written = written
        self.prefetcher = PromptPrefetcher(lambda index: self.reencode([index])[0], examples, workers)

    def collect(self, iteration: int, should_stop: ShouldStop = never) -> Collected:
        """Return the next batch; ``should_stop`` has no effect: drawing a batch takes no time."""
        drawn = self.sampler.take(self.config.batch)
        lengths = torch.tensor([float(self._length(self.examples[index])) for index in drawn])
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        pending = self.prefetcher.take(drawn[mine])
        if iteration < self.steps and self.prefetcher.in_processes:
            self.prefetcher.begin(self.sampler.peek(self.config.batch)[mine])
        encoded, lost = encode_rows(
            self.policy.encoder, [self.examples[index] for index in drawn[mine]], pending
        )
        targets, unheld = self._targets(drawn[mine], encoded)
        lost += unheld
        gone = self._gone(targets)
        if gone.all():
            raise RowsLost(
                f"none of the {len(gone):,} rows of this step can be read: {gather_object(lost)[0]}"
            )
        lengths = lengths[~gone]
        present = [place for place, target in enumerate(targets) if target is not None]
        own = [target for target in targets if target is not None]
        tokens, mask = pad_tokens([one.tokens for one in own], [one.own for one in own])
        suffixes = [one.talk.suffix if one.talk else None for one in own]
        rows = len(present)
        # A process that has lost its whole share keeps one prompt, of which no token counts.
        prompts = [prompt for place in present if (prompt := encoded[place])] or [
            self.policy.encoder.encode(Example("", "", ""))
        ]
        experience = Experience(
            examples=[drawn[mine][place] for place in present],
            prompts=prompts,
            prompt_of=torch.arange(rows),
            tokens=tokens,
            mask=mask,
            advantages=torch.ones(rows),
            mini_batch=torch.zeros(rows, dtype=torch.long),
            lengths=[lengths],
            old_logprobs=torch.zeros(tokens.shape),
            suffixes=suffixes if any(suffixes) else None,
            facts={
                "prompt_of": torch.tensor(present, dtype=torch.long) * self.accelerator.num_processes
                + self.accelerator.process_index,
                "completion_of": torch.zeros(rows, dtype=torch.long),
            },
        )
        metrics = {"completion/length_mean": float(lengths.mean()), "tokens/sampled": float(lengths.sum())}
        return Collected(experience, metrics, lost=gather_object(lost) if gone.any() else [])

    def _length(self, example: Example) -> int:
        """Return the number of the row's own target tokens."""
        turns = turns_of_row(example) if self.written else ()
        if not turns:
            return target_tokens(self.policy, example, self.config.target_template).numel()
        return sum(turn_tokens(self.policy, turn).numel() for turn in turns)

    def _targets(
        self, indices: Sequence[int], encoded: Sequence[EncodedPrompt | None]
    ) -> tuple[list[Completion | None], list[str]]:
        """Return what these rows are to learn, None if nothing can be, and lines about such conversations."""
        examples = [self.examples[index] for index in indices]
        found: list[Completion | None] = [
            None if prompt is None else self._target(example)
            for example, prompt in zip(examples, encoded, strict=True)
        ]
        if self.written is None:
            return found, []
        lines = []
        talks = [
            (place, prompt, example)
            for place, (prompt, example) in enumerate(zip(encoded, examples, strict=True))
            if prompt and turns_of_row(example)
        ]
        held = self.written.play([prompt for _, prompt, _ in talks], [example for *_, example in talks])
        for (place, *_), one in zip(talks, held, strict=True):
            found[place] = None if isinstance(one, str) else one
            if isinstance(one, str):
                lines.append(lost_line(examples[place], one))
        return found, lines

    def _target(self, example: Example) -> Completion:
        tokens = target_tokens(self.policy, example, self.config.target_template)
        return Completion(tokens, torch.zeros(tokens.shape), "", finished=True)

    def _gone(self, targets: Sequence[Completion | None]) -> Tensor:
        """Return which rows of the batch of all processes have nothing to learn, in the order drawn."""
        mine = torch.tensor([target is None for target in targets], device=self.accelerator.device)
        gathered: Tensor = self.accelerator.gather(mine)
        return gathered.unflatten(0, (self.accelerator.num_processes, -1)).T.flatten().cpu()

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of these examples."""
        return [self.policy.encoder.encode(self.examples[index]) for index in indices]

    def discard(self) -> None:
        """Do nothing: a batch is drawn when it is learned from."""

    def close(self) -> None:
        """Drop what was encoded ahead."""
        self.prefetcher.drop()


def target_tokens(policy: Policy, example: Example, template: str) -> Tensor:
    """Return the target tokens (T_i,), the end token included."""
    text = template.replace("{answer}", example.answer).replace("{solution}", example.solution or "")
    return turn_tokens(policy, text)


def solution_check(policy: Policy, template: str, max_new_tokens: int) -> Callable[[Example], str | None]:
    """Return a check for rows without a usable target: no solution, or one that is too long."""

    def check(example: Example) -> str | None:
        if "{solution}" in template and not (example.solution or "").strip():
            return "no solution to train on"
        length = target_tokens(policy, example, template).numel()
        if length > max_new_tokens:
            return f"the solution has {length:,} tokens, rollout.max_new_tokens is {max_new_tokens:,}"
        return None

    return check
