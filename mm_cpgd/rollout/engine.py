"""Interface of the rollout engines: sampling options, completions, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy


@dataclass(frozen=True)
class Sampling:
    """Sampling options; temperature 0 means greedy decoding."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    Attributes:
        tokens: (T_i,) ids, the end token included if there is one.
        logprobs: (T_i,) log-probabilities under the sampling policy, at temperature 1.
        text: the decoded tokens, without control tokens.
        finished: False if the length limit was reached before an end token.
    """

    tokens: Tensor
    logprobs: Tensor
    text: str
    finished: bool


# G completions of one prompt.
Group = list[Completion]


class RolloutEngine(Protocol):
    """Samples completions; ``load_weights`` must be called after every update of the policy."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """Sample ``len(seeds[p])`` completions of each prompt p.

        The seed of a completion determines its tokens, independent of the rest of the batch.
        """
        ...

    def load_weights(self, policy: Policy) -> None:
        """Use the policy's current weights from now on."""
        ...
