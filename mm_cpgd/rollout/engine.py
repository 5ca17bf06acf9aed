"""The interface that every sampling engine keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the most probable token."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    Attributes:
        tokens: (T_i,) ids, the end token included if there is one.
        logprobs: (T_i,) log-probabilities at temperature 1 when sampled.
        text: decoded without control tokens.
        finished: False when the length limit cut it off.
    """

    tokens: Tensor
    logprobs: Tensor
    text: str
    finished: bool


# The G completions of one prompt.
Group = list[Completion]


class RolloutEngine(Protocol):
    """Samples completions; ``load_weights`` is called after every update."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """Sample ``len(seeds[p])`` completions of each prompt p.

        The seed of a completion fixes its text, whatever else is sampled beside it.
        """
        ...

    def load_weights(self, policy: Policy) -> None:
        """Take over the policy's weights."""
        ...
