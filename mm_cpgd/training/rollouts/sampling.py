"""Sampling of an iteration's prompts, batch after batch, while what was sampled before is scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from accelerate import Accelerator

from data import Example
from mm_cpgd.distributed import Parts
from mm_cpgd.interrupt import ShouldStop, check
from mm_cpgd.policy import EncodedPrompt, PromptEncoder
from mm_cpgd.rollout import Group, GroupsInParts, RolloutEngine, Sampling
from mm_cpgd.rollout.conversations.parts import ConversationsInParts
from mm_cpgd.rollout.conversations.sampler import ConversationSampler, Seeds
from mm_cpgd.training.ahead.prefetch import Pending, background_thread, encode_rows, without_lost
from mm_cpgd.training.rollouts.beside.early import Early, EarlyAnswers, EarlySampled
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from rewards.compose import Scored


@dataclass(frozen=True)
class SamplingInBatches:
    """Samples and scores a process's share of an iteration's prompts.

    Attributes:
        batch_prompts: prompts of a batch.
        completions: G of each prompt.
        accelerator: the run's accelerator.
        encoder: encodes prompts.
        examples: training rows.
        scorer: scores completions.
        conversations: samples conversations; None: a completion is one turn.
        sampling: its options.
        early: asks for answers at budgets of the thinking; None: nothing does.
    """

    batch_prompts: int
    completions: int
    accelerator: Accelerator
    encoder: PromptEncoder
    examples: Sequence[Example]
    scorer: CompletionScorer
    conversations: ConversationSampler | None
    sampling: Sampling
    early: EarlyAnswers | None

    def __call__(
        self,
        engine: RolloutEngine,
        plain: RolloutEngine,
        indices: Sequence[int],
        pending: Sequence[Pending] | None,
        seeds: Sequence[Sequence[Seeds]],
        should_stop: ShouldStop,
        encoded: Sequence[EncodedPrompt | None] = (),
    ) -> tuple[list[EncodedPrompt | None], list[Group], list[list[Scored]], list[str], float, Early]:
        """Return what ``Sampled`` holds; the seconds are those spent waiting for scores.

        The completions of a batch of prompts are scored in a second thread while the next are sampled.

        Args:
            engine: samples completions.
            plain: samples early answers.
            indices: rows of the prompts.
            pending: their prompts, if they are being encoded already.
            seeds: of each prompt's completions.
            should_stop: called between two batches.
            encoded: the prompts, if all are known.
        """
        prompts = list(encoded)
        groups: list[Group] = []
        lost: list[str] = []
        parts = Parts()
        parted: GroupsInParts | ConversationsInParts
        if self.conversations is None:
            parted = GroupsInParts(engine, self.sampling, [[seed(0) for seed in own] for own in seeds])
        else:
            examples = [self.examples[index] for index in indices]
            parted = ConversationsInParts(self.conversations, self.sampling, examples, seeds)
        with background_thread("scores") as thread:
            with parted:
                scores = []
                for start in range(0, len(indices), self.batch_prompts):
                    check(should_stop)
                    batch = slice(start, start + self.batch_prompts)
                    if len(prompts) == start:
                        part = slice(start, None) if parted.needs_all else batch
                        rows = [self.examples[index] for index in indices[part]]
                        encoded, gone = encode_rows(self.encoder, rows, pending and pending[part])
                        prompts += encoded
                        lost += gone
                    # After an error the others still meet this process before each batch.
                    present = prompts if parts.problem is None else [None] * len(prompts)
                    nothing: list[Group] = [[] for _ in prompts[batch]]
                    new = parts.run(partial(self._generate, parted, present, batch), nothing)
                    rows = [self.examples[index] for index in indices[batch]]
                    prompts[batch], gone = without_lost(rows, prompts[batch], new)
                    lost += gone
                    groups += new
                    scores.append(thread.submit(self.scorer.score_groups, new, rows, self.completions))
            asked = parts.run(partial(self._ask_early, plain, prompts, groups, seeds), None)
            parts.end()
            ended = time.perf_counter()
            scored = [group for chunk in scores for group in chunk.result()]
            rows = [self.examples[index] for index in indices]
            early = self.early.score(asked, rows) if self.early and asked else None
        return prompts, groups, scored, lost, time.perf_counter() - ended, early

    def _ask_early(
        self,
        engine: RolloutEngine,
        prompts: Sequence[EncodedPrompt | None],
        groups: Sequence[Group],
        seeds: Sequence[Sequence[Seeds]],
    ) -> EarlySampled | None:
        with self.accelerator.autocast():
            firsts = [[seed(0) for seed in own] for own in seeds]
            return self.early.sample(engine, prompts, groups, firsts) if self.early else None

    def _generate(
        self,
        parted: GroupsInParts | ConversationsInParts,
        prompts: Sequence[EncodedPrompt | None],
        batch: slice,
    ) -> list[Group]:
        with self.accelerator.autocast():
            return parted.take(prompts, batch)
