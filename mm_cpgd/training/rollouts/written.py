"""Conversations whose turns are written in the rows: played with the environment, to be learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from data import Example
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Completion
from mm_cpgd.rollout.conversations.sampler import ConversationSampler
from mm_cpgd.rollout.conversations.state import Conversation
from mm_cpgd.training.rollouts.seeds import seed_of

# Key of ``Example.meta`` with the texts of the policy's turns.
TURNS = "turns"


def turns_of_row(example: Example) -> tuple[str, ...]:
    """Return the policy's turns that the row writes, none if it has no such column."""
    found = example.meta.get(TURNS)
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def turns_check(
    policy: Policy, rollout: RolloutConfig, without: Callable[[Example], str | None]
) -> Callable[[Example], str | None]:
    """Return a check for rows with turns that no conversation can have; ``without`` checks rows without."""
    if rollout.environment is None:
        return without
    most, max_new_tokens = rollout.environment.max_turns, rollout.max_new_tokens

    def check(example: Example) -> str | None:
        turns = example.meta.get(TURNS)
        if turns is None:
            return without(example)
        if not isinstance(turns, list | tuple) or not turns or not all(isinstance(t, str) for t in turns):
            return f"the column {TURNS} is not a list of the texts of the policy's turns"
        if len(turns) > most:
            return f"{len(turns)} turns, rollout.environment.max_turns is {most}"
        longest = max(turn_tokens(policy, turn).numel() for turn in turns)
        if longest > max_new_tokens:
            return f"a turn has {longest:,} tokens, rollout.max_new_tokens is {max_new_tokens:,}"
        return None

    return check


def turn_tokens(policy: Policy, text: str) -> torch.Tensor:
    """Return the tokens (k,) of a turn, the end token included."""
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor([*ids, policy.tokenizer.eos_token_id])


class WrittenConversations:
    """Plays written turns with an environment, which replies to each but the last.

    Args:
        sampler: its policy, environments and limits; nothing is sampled.
        seed: of the run; an environment's seed depends on it and on the row.
    """

    def __init__(self, sampler: ConversationSampler, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed

    def play(self, prompts: Sequence[EncodedPrompt], examples: Sequence[Example]) -> list[Completion | str]:
        """Return each row's conversation as a completion, or in one line why it cannot be held.

        Args:
            prompts: of the examples, as the environment writes them.
            examples: rows with turns.

        Raises:
            UserError: the environment breaks its protocol.
        """
        turns = [turns_of_row(example) for example in examples]
        held = [
            Conversation(prompt, example, partial(seed_of, self.seed, example.id))
            for prompt, example in zip(prompts, examples, strict=True)
        ]
        for number in range(max(map(len, turns), default=0)):
            replied = []
            for one, written in zip(held, turns, strict=True):
                if number < len(written) and not one.ended:
                    self.sampler.add_turn(one, self._turn(written[number]))
                    if number + 1 < len(written):
                        replied.append(one)
            self.sampler.reply(replied)
        return [self._result(one, len(written)) for one, written in zip(held, turns, strict=True)]

    def _turn(self, text: str) -> Completion:
        tokens = turn_tokens(self.sampler.policy, text)
        # As the environment reads a sampled turn.
        read = self.sampler.policy.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        return Completion(tokens, torch.zeros(tokens.shape), read, finished=True)

    def _result(self, one: Conversation, turns: int) -> Completion | str:
        if one.failure is not None:
            return one.failure.reason
        if one.cut:
            return f"the conversation is longer than rollout.environment.max_{one.cut} allows"
        if len(one.turns) < turns:
            return f"the environment ends the conversation after turn {len(one.turns)} of {turns}"
        return one.completion(self.sampler.policy.model)
