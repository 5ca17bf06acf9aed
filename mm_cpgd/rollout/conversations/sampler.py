"""Conversations of a policy with environments: each turn is sampled, and the environment replies to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from data import DataError, Example
from mm_cpgd.environments.protocol import EnvironmentFactory, Observation
from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import Conversation as Written
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.conversation.observations import ObservationEncoder
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.conversations.exchange import Exchange
from mm_cpgd.rollout.conversations.sessions import SessionEngine, TurnSession
from mm_cpgd.rollout.conversations.state import LOST_IMAGE, Conversation, Limits
from mm_cpgd.rollout.conversations.stepping import StepFailed, run_steps
from mm_cpgd.rollout.engine import Completion, Group, RolloutEngine
from mm_cpgd.rollout.local import LocalEngine
from rewards import Status

Seeds = Callable[[int], int]
"""Seed of each turn of a completion, from 0; of ``ENVIRONMENT``, that of its environment."""
ENVIRONMENT = -1


class ConversationSampler:
    """Samples conversations of several turns with environments, one for each completion.

    A conversation that goes on is a prompt that ends with its own tokens: what was sampled is what the policy
    reads again. With an engine that has sessions each conversation goes on when its environment has replied
    (``Exchange``). Other engines are called once for each turn that is allowed, also when no conversation
    goes on: all processes that share an engine call it equally often.

    Args:
        policy: encodes prompts and observations.
        engine: samples single turns.
        factory: makes the environments.
        limits: of a conversation.
        seconds: limit of one reply of an environment.
        threads: environments that reply at a time.
        rounds: whether each turn is sampled of all conversations at once, when all environments have replied.

    Raises:
        UserError: the policy cannot continue a conversation.
    """

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        factory: EnvironmentFactory,
        limits: Limits,
        *,
        seconds: float,
        threads: int,
        rounds: bool = False,
    ) -> None:
        self.policy = policy
        self.engine = engine
        self.factory = factory
        self.limits = limits
        self.seconds = seconds
        self.threads = threads
        self.rounds = rounds
        self.encoder = ObservationEncoder(policy.encoder, policy.end_ids)

    def generate(
        self,
        prompts: Sequence[EncodedPrompt | None],
        examples: Sequence[Example],
        sampling: Sampling,
        seeds: Sequence[Sequence[Seeds]],
    ) -> list[Group]:
        """Sample the completions of each prompt, none for None or one whose image has vanished.

        Args:
            prompts: P prompts, as the environment writes them for the examples.
            examples: of each prompt.
            sampling: its options; ``max_new_tokens`` is the limit of one turn.
            seeds: G of each prompt.

        Raises:
            UserError: an environment writes another prompt, or breaks its protocol.
        """
        groups: list[list[Conversation]] = [
            [] if prompt is None else [Conversation(prompt, example, seed) for seed in own]
            for prompt, example, own in zip(prompts, examples, seeds, strict=True)
        ]
        self.encode_images([group[0].prompt for group in groups if group])
        size = self.engine.batch_prompts if isinstance(self.engine, LocalEngine) else max(1, len(groups))
        for first in range(0, max(1, len(groups)), size):
            part = [group for group in groups[first : first + size] if group]
            session = self._session(part, sampling)
            if session is None:
                self._sample_in_rounds(part, sampling)
                continue
            with session as opened:
                Exchange(self, opened, part).run()
        return [[one.completion(self.policy.model) for one in group if one.turns] for group in groups]

    def _session(
        self, groups: Sequence[Sequence[Conversation]], sampling: Sampling
    ) -> AbstractContextManager[TurnSession] | None:
        if not isinstance(self.engine, SessionEngine) or len({len(group) for group in groups}) != 1:
            return None
        prompts = [group[0].prompt for group in groups]
        return self.engine.session(prompts, len(groups[0]), sampling, self.limits.tokens)

    def _sample_in_rounds(self, groups: Sequence[list[Conversation]], sampling: Sampling) -> None:
        """Sample each turn of all conversations at once; one whose image has vanished gets none."""
        first = self.engine.generate(
            [group[0].prompt for group in groups],
            sampling,
            [[one.seed(0) for one in group] for group in groups],
        )
        begun = []
        for group, completions in zip(groups, first, strict=True):
            for one, completion in zip(group, completions, strict=False):
                self.add_turn(one, completion)
                begun.append(one)
        going = self.reply(begun)
        for turn in range(1, self.limits.turns):
            going = self._round(going, sampling, turn)

    def _round(self, going: Sequence[Conversation], sampling: Sampling, turn: int) -> list[Conversation]:
        """Sample the next turn of these conversations; return those that go on after it."""
        self.encode_images([seen for one in going for seen in one.observations])
        prompts = [one.continued(self.policy.model) for one in going]
        groups = self.engine.generate(prompts, sampling, [[one.seed(turn)] for one in going])
        for one, group in zip(going, groups, strict=True):
            if group:
                self.add_turn(one, group[0])
            else:
                one.fail(LOST_IMAGE)
        return self.reply([one for one in going if not one.ended])

    def add_turn(self, one: Conversation, completion: Completion) -> None:
        """Append a turn to the conversation, as far as there is room for it."""
        room = self.limits.tokens - one.tokens
        if completion.tokens.numel() > room:
            text = self.policy.tokenizer.decode(completion.tokens[:room].tolist(), skip_special_tokens=True)
            completion = replace(completion, text=text)
        one.add_turn(completion, self.limits)

    def reply(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """Let the environments reply to the newest turns; return the conversations that go on."""
        steps = [partial(self.step, one) for one in conversations]
        replies = run_steps(steps, seconds=self.seconds, threads=self.threads)
        for one, reply in zip(conversations, replies, strict=True):
            self.note_reply(one, reply)
        return [one for one in conversations if not one.ended]

    def note_reply(self, one: Conversation, reply: Observation | StepFailed) -> None:
        """Append what the environment has replied, or end the conversation."""
        if one.note_reply(reply, self.limits):
            assert isinstance(reply, Observation)
            self._observe(one, reply)

    def step(self, one: Conversation) -> Observation:
        """Return the environment's reply to the newest turn; called in a thread."""
        if one.environment is None:
            environment = self.factory(one.seed(ENVIRONMENT))
            encoder = self.policy.encoder
            written = encoder.conversation_of(environment.reset(encoder.for_environment(one.example)))
            known = one.prompt.conversation
            if known is not None and _told(written) != _told(known):
                raise UserError(
                    f"rollout.environment: reset writes another prompt for another seed (row "
                    f"{one.example.id!r}); the prompt has to be equal for all completions of an example"
                )
            one.environment = environment
        return one.environment.step(one.turns[-1].text)

    def _observe(self, one: Conversation, reply: Observation) -> None:
        last = int(one.sampled[-1].tokens[-1])
        try:
            one.observe(self.encoder.encode(reply.messages, last), self.limits)
        except (
            DataError,
            ValueError,
        ) as error:  # an image that cannot be opened, or that the processor refuses
            one.note_reply(StepFailed(Status.ERROR, f"its image cannot be used: {error}"), self.limits)

    def encode_images(self, parts: Sequence[object]) -> None:
        """Compute image features once, for all turns and for the update, where the tower is frozen.

        Engines other than the policy itself compute their own; then the update does it.
        """
        cache = self.policy.vision_cache
        if isinstance(self.engine, LocalEngine) and self.policy.shared_prefix and cache.frozen:
            cache.encode([part for part in parts if part is not None])  # type: ignore[misc]


def _told(prompt: Written) -> tuple[object, ...]:
    """Return what two prompts have in common if they are the same."""
    images = [image.origin for image in prompt.images]
    return prompt.messages, images, [video.ref.origin for video in prompt.videos]
