"""Interface of the rollout engines: completions, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mm_cpgd.environments.protocol import Observation
from mm_cpgd.policy.conversation.suffix import Suffix
from mm_cpgd.policy.distribution import KeptTokens, Sampling
from rewards import Verdict

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy


@dataclass(frozen=True)
class Turn:
    """One turn of the policy, and the reply of the environment to it.

    Attributes:
        text: the decoded tokens, without control tokens.
        tokens: their number.
        observation: the reply; None if the environment failed, or was not asked.
    """

    text: str
    tokens: int
    observation: Observation | None = None

    @property
    def observed(self) -> str:
        """Text of the reply."""
        return "\n".join(one.text for one in self.observation.messages) if self.observation else ""


@dataclass(frozen=True)
class Talk:
    """What a conversation has beside its tokens.

    Attributes:
        turns: the policy's turns in order, at least one.
        own: (T_i,) True where a token was sampled, False where it was observed.
        suffix: positions and images of the observations; None if nothing was observed.
        cut: limit that ended it before the environment did: turns, tokens or images; empty: none.
        failure: what the environment did wrong, as a verdict without a score; None: nothing.
    """

    turns: tuple[Turn, ...]
    own: Tensor
    suffix: Suffix | None = None
    cut: str = ""
    failure: Verdict | None = None

    def scores(self) -> dict[str, float | None]:
        """Return the parts of the score, each added over the turns; None for one that could not be scored."""
        found: dict[str, float | None] = {}
        for turn in self.turns:
            for name, given in (turn.observation.scores if turn.observation else {}).items():
                score = given.score if isinstance(given, Verdict) else float(given)
                before = found.get(name, 0.0)
                found[name] = None if score is None or before is None else before + score
        return found


@dataclass(frozen=True)
class Completion:
    """One sampled completion.

    Attributes:
        tokens: (T_i,) ids, the end token included if there is one; of a conversation of several turns all
            tokens after the prompt, those of observations included.
        logprobs: (T_i,) log-probabilities in the distribution that they were drawn from: at the sampling
            temperature, over the tokens that the cuts left; greedy decoding: at temperature 1, over all. 0 at
            tokens of observations.
        text: the decoded tokens, without control tokens; of a conversation those of the last turn.
        finished: False if the length limit was reached before an end token, or a conversation was cut.
        kept: the tokens that the cuts left at each position; None: there were no cuts, or the engine does not
            report them.
        talk: the conversation that it is; None: a turn without an environment.
    """

    tokens: Tensor
    logprobs: Tensor
    text: str
    finished: bool
    kept: KeptTokens | None = None
    talk: Talk | None = None

    @property
    def own(self) -> Tensor:
        """(T_i,) True where a token is the completion's own, and not of an observation."""
        if self.talk is None:
            return torch.ones(self.tokens.shape, dtype=torch.bool)
        return self.talk.own

    @property
    def length(self) -> int:
        """Number of own tokens."""
        return int(self.own.sum())


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


class WrappedEngine:
    """An engine by which another samples something else; weights and resources are the other's.

    Args:
        engine: the other.
    """

    def __init__(self, engine: RolloutEngine) -> None:
        self.engine = engine

    def load_weights(self, policy: Policy) -> None:
        """See ``RolloutEngine.load_weights``."""
        self.engine.load_weights(policy)

    def release(self) -> None:
        """See ``RolloutEngine.release``."""
        self.engine.release()

    def close(self) -> None:
        """See ``RolloutEngine.close``."""
        self.engine.close()


def in_halves(seeds: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Return the seeds of the first and of the second half of each prompt's completions.

    Raises:
        ValueError: a prompt has an odd number of seeds.
    """
    if any(len(own) % 2 for own in seeds):
        raise ValueError(f"{[len(own) for own in seeds]} seeds; halves need an even number")
    return [own[: len(own) // 2] for own in seeds], [own[len(own) // 2 :] for own in seeds]
