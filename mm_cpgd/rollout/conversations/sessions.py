"""Interface of engines that sample turns of many conversations, each of which begins when it can."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mm_cpgd.policy.conversation.suffix import EncodedObservation
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout.engine import Completion

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt


@dataclass(frozen=True)
class TurnRequest:
    """A turn to be sampled.

    Attributes:
        row: number of the conversation: k of prompt p has number p · G + k.
        prompt: what the policy reads: in the first turn the prompt alone, later a ``ContinuedPrompt``.
        seed: determines its tokens.
        observations: those in ``prompt``, in order.
    """

    row: int
    prompt: EncodedPrompt
    seed: int
    observations: Sequence[EncodedObservation] = ()


class TurnSession(Protocol):
    """Turns of the conversations of P prompts, G of each, sampled while other conversations wait."""

    @property
    def busy(self) -> bool:
        """Whether a turn that was submitted has not been returned."""
        ...

    def submit(self, request: TurnRequest) -> None:
        """Have a turn sampled; the conversation's turns before it have been returned."""
        ...

    def advance(self) -> list[tuple[int, Completion | None]]:
        """Go on sampling, and return the turns that have ended since, with their conversations' numbers.

        None stands for a turn of which an image cannot be opened any more.
        """
        ...

    def forget(self, row: int) -> None:
        """Free what is kept of a conversation, which has ended."""
        ...


@runtime_checkable
class SessionEngine(Protocol):
    """An engine that samples turns as they are submitted."""

    def session(
        self, prompts: Sequence[EncodedPrompt], copies: int, sampling: Sampling, longest: int
    ) -> AbstractContextManager[TurnSession] | None:
        """Return a session; None if turns of several conversations have to be sampled together.

        Args:
            prompts: P.
            copies: G.
            sampling: options of a turn.
            longest: most tokens of a conversation after its prompt.
        """
        ...
