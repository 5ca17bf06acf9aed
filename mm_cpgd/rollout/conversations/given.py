"""Completions with given tokens: continued from a cut completion, or begun for the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt, extend, suffix_of
from mm_cpgd.policy.distribution import KeptTokens, Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.engine import (
    Completion,
    Group,
    RolloutEngine,
    Talk,
    Turn,
    WrappedEngine,
    in_halves,
)


def given_tokens(policy: Policy, text: str) -> Tensor:
    """Return the ids (k,) of a text that stands within a completion."""
    ids = policy.tokenizer.encode(text, add_special_tokens=False)
    return torch.tensor(ids, dtype=torch.long)


def continued(model: nn.Module, prompt: EncodedPrompt, tokens: Tensor) -> ContinuedPrompt:
    """Return a prompt and the tokens (T,) after it as one prompt, which engines continue.

    Those that continue one prompt share its keys and values and its image features.
    """
    return extend(prompt, tokens, suffix_of(model, prompt, [tokens]))


class BegunEngine(WrappedEngine):
    """Samples the second half of each prompt's completions after a given beginning.

    Both halves are one group. The beginning is part of these completions, and not their own: it is in the
    context and in no loss, as what a conversation observes is.

    Args:
        engine: samples; it is called twice, for each half.
        policy: its tokenizer and model give ids and positions.
        text: the beginning.
        max_new_tokens: largest length of what follows it; None: as of the others.
    """

    def __init__(
        self, engine: RolloutEngine, policy: Policy, text: str, max_new_tokens: int | None = None
    ) -> None:
        super().__init__(engine)
        self.policy = policy
        self.text = text
        self.max_new_tokens = max_new_tokens

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``; every prompt needs an even number of seeds."""
        first_seeds, second_seeds = in_halves(seeds)
        given = given_tokens(self.policy, self.text)
        begun = [continued(self.policy.model, prompt, given) for prompt in prompts]
        limit = replace(sampling, max_new_tokens=self.max_new_tokens or sampling.max_new_tokens)
        whole = self.engine.generate(prompts, sampling, first_seeds)
        after = self.engine.generate(begun, limit, second_seeds)
        return [
            [*first, *(with_beginning(prompt, self.text, one) for one in second)] if first and second else []
            for first, prompt, second in zip(whole, begun, after, strict=True)
        ]


def with_beginning(prompt: ContinuedPrompt, text: str, completion: Completion) -> Completion:
    """Return what was sampled after a beginning as a completion that has it.

    Args:
        prompt: the prompt with the beginning.
        text: the beginning.
        completion: sampled after it.
    """
    given, sampled = prompt.tokens, completion.tokens
    own = torch.arange(len(given) + len(sampled)) >= len(given)
    suffix = prompt.suffix
    after = prompt.next_position + torch.arange(len(sampled))
    types = suffix.token_types
    if types is not None:
        types = torch.cat([types, types.new_zeros(len(sampled))])
    positions = torch.cat([suffix.positions, after.expand(len(suffix.positions), -1)], 1)
    kept = completion.kept
    if kept is not None:  # at given tokens: all tokens
        counts = torch.cat([kept.counts.new_zeros(1, len(given)), kept.counts], 1)
        kept = KeptTokens(counts, kept.ids)
    turn = Turn(text + completion.text, len(sampled))
    return Completion(
        torch.cat([given, sampled]),
        torch.cat([completion.logprobs.new_zeros(len(given)), completion.logprobs]),
        turn.text,
        completion.finished,
        kept,
        Talk((turn,), own, replace(suffix, positions=positions, token_types=types)),
    )
