"""Conversations of a rollout batch, taken in parts as single turns are (``GroupsInParts``)."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from data import Example
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout.conversations.sampler import ConversationSampler, Seeds
from mm_cpgd.rollout.engine import Group


class ConversationsInParts:
    """Groups of conversations of many prompts.

    Args:
        sampler: samples them.
        sampling: options of a turn.
        examples: of each prompt.
        seeds: of each prompt's completions.
    """

    needs_all = False

    def __init__(
        self,
        sampler: ConversationSampler,
        sampling: Sampling,
        examples: Sequence[Example],
        seeds: Sequence[Sequence[Seeds]],
    ) -> None:
        self.sampler = sampler
        self.sampling = sampling
        self.examples = examples
        self.seeds = seeds

    def __enter__(self) -> ConversationsInParts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to end."""

    def take(self, prompts: Sequence[EncodedPrompt | None], part: slice) -> list[Group]:
        """See ``GroupsInParts.take``."""
        return self.sampler.generate(prompts[part], self.examples[part], self.sampling, self.seeds[part])
