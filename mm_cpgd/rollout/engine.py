"""Interface of the rollout engines: completions, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from mm_cpgd.policy.distribution import KeptTokens, Sampling

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    Attributes:
        tokens: (T_i,) ids, the end token included if there is one.
        logprobs: (T_i,) log-probabilities in the distribution that they were drawn from: at the sampling
            temperature, over the tokens that the cuts left; greedy decoding: at temperature 1, over all.
        text: the decoded tokens, without control tokens.
        finished: False if the length limit was reached before an end token.
        kept: the tokens that the cuts left at each position; None: there were no cuts, or the engine does not
            report them.
    """

    tokens: Tensor
    logprobs: Tensor
    text: str
    finished: bool
    kept: KeptTokens | None = None


# G completions of one prompt.
Group = list[Completion]


class RolloutEngine(Protocol):
    """Samples completions; ``load_weights`` must be called after every update of the policy."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """Sample ``len(seeds[p])`` completions of each prompt p, or none if its image has vanished.

        Called on all processes equally often, also without prompts: several may share an engine.
        The seed of a completion determines its tokens, independent of the rest of the batch.
        """
        ...

    def load_weights(self, policy: Policy) -> None:
        """Use the policy's current weights from now on; called on all processes."""
        ...

    def release(self) -> None:
        """Free what only sampling needs, until the next ``load_weights``."""
        ...

    def close(self) -> None:
        """End what the engine has started; nothing can be sampled afterwards."""
        ...
