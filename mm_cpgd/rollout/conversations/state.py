"""One conversation while it is sampled: its tokens so far, its limits, and the completion that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from data import Example
from mm_cpgd.environments.protocol import Environment, Observation
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.conversation.suffix import (
    ContinuedPrompt,
    EncodedObservation,
    Part,
    extend,
    join_parts,
    suffix_of,
)
from mm_cpgd.policy.distribution import KeptTokens
from mm_cpgd.rollout.conversations.stepping import StepFailed
from mm_cpgd.rollout.engine import Completion, Talk, Turn
from rewards import Status, Verdict

LOST_IMAGE = Verdict(None, Status.ERROR, None, "an image of an observation cannot be opened any more")


@dataclass(frozen=True)
class Limits:
    """Largest size of a conversation.

    Attributes:
        turns: turns of the policy.
        tokens: tokens after the prompt, own ones and those of observations.
        images: images in observations.
    """

    turns: int
    tokens: int
    images: int


@dataclass
class Conversation:
    """A prompt and what followed.

    Attributes:
        prompt: the prompt, shared by the group.
        example: its row.
        seed: of each of its turns, and of its environment.
        environment: replies; None before the first step.
        parts: turns and observations, as tokens.
        turns: turns with the replies to them.
        sampled: completions of single turns, as the engine returned them.
        cut: see ``Talk``.
        failure: see ``Talk``.
        ended: whether nothing more is sampled.
    """

    prompt: EncodedPrompt
    example: Example
    seed: Callable[[int], int]
    environment: Environment | None = None
    parts: list[Part] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    sampled: list[Completion] = field(default_factory=list)
    cut: str = ""
    failure: Verdict | None = None
    ended: bool = False

    @property
    def tokens(self) -> int:
        """Tokens after the prompt."""
        return sum(len(part) for part in self.parts)

    @property
    def images(self) -> int:
        """Images in the observations."""
        return sum(len(part.images) for part in self.parts if isinstance(part, EncodedObservation))

    @property
    def observations(self) -> list[EncodedObservation]:
        """The observations."""
        return [part for part in self.parts if isinstance(part, EncodedObservation)]

    def add_turn(self, completion: Completion, limits: Limits) -> None:
        """Append a turn, as far as there is room for it."""
        room = limits.tokens - self.tokens
        if completion.tokens.numel() > room:
            completion = _shortened(completion, room)
            self.cut = "tokens"
        self.parts.append(completion.tokens)
        self.sampled.append(completion)
        self.turns.append(Turn(completion.text, completion.tokens.numel()))

    def note_reply(self, reply: Observation | StepFailed, limits: Limits) -> bool:
        """Store the environment's reply to the newest turn; return whether the conversation goes on."""
        if isinstance(reply, StepFailed):
            self.fail(Verdict(None, reply.status, None, f"the environment failed: {reply.reason}"))
            return False
        self.turns[-1] = replace(self.turns[-1], observation=reply)
        if not reply.done and self.sampled[-1].finished and len(self.turns) == limits.turns:
            self.cut = self.cut or "turns"
        self.ended = reply.done or bool(self.cut) or not self.sampled[-1].finished
        return not self.ended

    def observe(self, observation: EncodedObservation, limits: Limits) -> None:
        """Append what the policy reads before its next turn; without room for it the conversation ends."""
        if self.images + len(observation.images) > limits.images:
            self.cut, self.ended = "images", True
        elif self.tokens + len(observation) >= limits.tokens:
            self.cut, self.ended = "tokens", True
        else:
            self.parts.append(observation)

    def fail(self, verdict: Verdict) -> None:
        """End the conversation, which cannot be scored; what follows the last turn is dropped."""
        self.failure, self.ended = verdict, True
        if isinstance(self.parts[-1], EncodedObservation):
            self.parts.pop()

    def continued(self, model: nn.Module) -> ContinuedPrompt:
        """Return prompt and suffix as one prompt."""
        tokens, _ = join_parts(self.parts)
        images = tuple(image for seen in self.observations for image in seen.images)
        return replace(extend(self.prompt, tokens, suffix_of(model, self.prompt, self.parts)), images=images)

    def completion(self, model: nn.Module) -> Completion:
        """Return the whole conversation as one completion."""
        tokens, own = join_parts(self.parts)
        last = self.sampled[-1]
        suffix = suffix_of(model, self.prompt, self.parts) if self.observations else None
        *earlier, final = self.turns
        if final.observation is not None:  # which the policy has not read
            final = replace(final, observation=replace(final.observation, messages=()))
        talk = Talk((*earlier, final), own, suffix, self.cut, self.failure)
        kept = [one.kept for one in self.sampled if one.kept is not None]
        return Completion(
            tokens,
            self._spread([one.logprobs for one in self.sampled], own),
            last.text,
            last.finished and not self.cut,
            _join_kept(kept, own) if len(kept) == len(self.sampled) else None,
            talk,
        )

    @staticmethod
    def _spread(values: Sequence[Tensor], own: Tensor) -> Tensor:
        """Return the turns' values (T,), 0 at tokens of observations."""
        joined = torch.cat(list(values))
        spread = joined.new_zeros(own.shape)
        spread[own] = joined
        return spread


def _shortened(completion: Completion, room: int) -> Completion:
    """Return the first ``room`` tokens; their text is decoded by the caller."""
    kept = completion.kept and completion.kept.select(torch.tensor([0]), room)
    return replace(
        completion,
        tokens=completion.tokens[:room],
        logprobs=completion.logprobs[:room],
        finished=False,
        kept=kept,
    )


def _join_kept(turns: Sequence[KeptTokens], own: Tensor) -> KeptTokens:
    """Return what the cuts left in all turns as one row; at tokens of observations: all tokens."""
    counts = torch.zeros(1, len(own), dtype=torch.int32)
    counts[0, own] = torch.cat([one.counts[0] for one in turns])
    return KeptTokens(counts, torch.cat([one.ids for one in turns]))
