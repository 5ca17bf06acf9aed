"""Demonstrated conversations: written turns of the policy, and the replies of the environment between them.

Supervised fine-tuning on conversations learns the turns and reads the replies, as reinforcement learning
does: written turns take the place of sampled ones, and the same code encodes what lies between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from data import Example
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout import Completion, Group
from mm_cpgd.rollout.conversations.sampler import ENVIRONMENT
from mm_cpgd.training.rollouts.build import build_conversations

# The column of ``Example.meta`` with the policy's turns, a list of texts; rows without it have one turn.
TURNS = "turns"


def turns_of(example: Example) -> list[str] | None:
    """Return the texts of the policy's turns that a row demonstrates, or None if it has no such column."""
    turns = example.meta.get(TURNS)
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        return None
    return [str(turn) for turn in turns]


class WrittenTurns:
    """Engine that returns written turns: the seed of a turn is its index in ``turns``, -1 for none."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.turns: list[Tensor] = []

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """Return the turns that the seeds name."""
        return [[self._turn(seed) for seed in group] for group in seeds]

    def load_weights(self, policy: Policy) -> None:
        """Do nothing: the turns are written."""

    def release(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def _turn(self, index: int) -> Completion:
        tokens = self.turns[index] if index >= 0 else torch.tensor([self.policy.tokenizer.eos_token_id])
        text = self.policy.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        return Completion(tokens, torch.zeros(tokens.numel()), text, finished=True)


class Demonstrations:
    """Plays written turns through the run's environment.

    Args:
        config: has an environment.
        policy: encodes what the environment replies.

    Raises:
        UserError: as ``build_conversations``.
    """

    def __init__(self, config: RunConfig, policy: Policy) -> None:
        self._engine = WrittenTurns(policy)
        sampler = build_conversations(config, policy, self._engine)
        assert sampler is not None, "the config has no environment"
        self._sampler = sampler
        self._sampling = Sampling(max_new_tokens=config.rollout.max_new_tokens)

    def play(
        self, prompts: Sequence[EncodedPrompt], examples: Sequence[Example], turns: Sequence[Sequence[Tensor]]
    ) -> list[Completion]:
        """Return the conversation of each row.

        Args:
            prompts: n prompts, as the environment writes them.
            examples: n rows.
            turns: of each the tokens (T,) of its turns, end tokens included.

        Raises:
            UserError: a conversation that does not end with its last turn, or whose environment fails.
        """
        self._engine.turns = [turn for row in turns for turn in row]
        starts = [sum(len(row) for row in turns[:place]) for place in range(len(turns))]
        seeds = [[_seeds(start, len(row))] for start, row in zip(starts, turns, strict=True)]
        groups = self._sampler.generate(prompts, examples, self._sampling, seeds)
        played = [group[0] for group in groups]
        for one, row, example in zip(played, turns, examples, strict=True):
            _check(one, len(row), example)
        return played


def _seeds(start: int, count: int) -> Callable[[int], int]:
    def seed(turn: int) -> int:
        if turn == ENVIRONMENT:
            return 0
        return start + turn if turn < count else -1

    return seed


def _check(played: Completion, count: int, example: Example) -> None:
    talk = played.talk
    assert talk is not None, "sampled with an environment"
    if talk.failure is not None:
        raise UserError(f"row {example.id!r}: {talk.failure.reason}; fix the row or the environment")
    if talk.cut:
        limit = f"rollout.environment.max_{talk.cut}"
        raise UserError(f"row {example.id!r}: its conversation exceeds {limit}; raise it")
    if len(talk.turns) != count:
        what = "ends before its last turn" if len(talk.turns) < count else "does not end with its last turn"
        raise UserError(
            f"row {example.id!r}: its conversation of {count} turns {what}; meta.{TURNS} must be what the "
            "policy writes until the environment is done"
        )
