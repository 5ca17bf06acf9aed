"""Rounds of conversations: each turn is sampled for all that go on, then their environments reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from data import DataError, Example
from mm_cpgd.environments.protocol import EnvironmentFactory, Observation
from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.conversation.observations import ObservationEncoder
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.policy import Policy
from mm_cpgd.rollout.conversations.state import Conversation, Limits
from mm_cpgd.rollout.conversations.stepping import StepFailed, run_steps
from mm_cpgd.rollout.engine import Completion, Group, RolloutEngine
from mm_cpgd.rollout.local import LocalEngine
from rewards import Status, Verdict

Seeds = Callable[[int], int]
"""Seed of each turn of a completion, from 0; of ``ENVIRONMENT``, that of its environment."""
ENVIRONMENT = -1


class ConversationSampler:
    """Samples conversations of several turns with environments, one for each completion.

    A conversation that goes on is a prompt that ends with its own tokens: what was sampled is what the policy
    reads again. The engine is called once for each turn that is allowed, also when no conversation goes on:
    all processes that share an engine call it equally often.

    Args:
        policy: encodes prompts and observations.
        engine: samples single turns.
        factory: makes the environments.
        limits: of a conversation.
        seconds: limit of one reply of an environment.
        threads: environments that reply at a time.

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
    ) -> None:
        self.policy = policy
        self.engine = engine
        self.factory = factory
        self.limits = limits
        self.seconds = seconds
        self.threads = threads
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
        present = [place for place, prompt in enumerate(prompts) if prompt is not None]
        self._encode_images([prompts[place] for place in present])
        first = self.engine.generate(
            [prompt for prompt in prompts if prompt is not None],
            sampling,
            [[seed(0) for seed in seeds[place]] for place in present],
        )
        groups: list[list[Conversation]] = [[] for _ in prompts]
        for place, group in zip(present, first, strict=True):
            prompt = prompts[place]
            assert prompt is not None
            for seed, completion in zip(seeds[place], group, strict=False):
                one = Conversation(prompt, examples[place], seed)
                self.add_turn(one, completion)
                groups[place].append(one)
        everyone = [one for group in groups for one in group]
        going = self.reply(everyone)
        for turn in range(1, self.limits.turns):
            going = self._round(going, sampling, turn)
        return [[one.completion(self.policy.model) for one in group] for group in groups]

    def _round(self, going: Sequence[Conversation], sampling: Sampling, turn: int) -> list[Conversation]:
        """Sample the next turn of these conversations; return those that go on after it."""
        self._encode_images([seen for one in going for seen in one.observations])
        prompts = [one.continued(self.policy.model) for one in going]
        groups = self.engine.generate(prompts, sampling, [[one.seed(turn)] for one in going])
        for one, group in zip(going, groups, strict=True):
            if group:
                self.add_turn(one, group[0])
            else:
                one.fail(
                    Verdict(None, Status.ERROR, None, "an image of an observation cannot be opened any more")
                )
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
        steps = [partial(self._step, one) for one in conversations]
        replies = run_steps(steps, seconds=self.seconds, threads=self.threads)
        for one, reply in zip(conversations, replies, strict=True):
            if one.note_reply(reply, self.limits):
                assert isinstance(reply, Observation)
                self._observe(one, reply)
        return [one for one in conversations if not one.ended]

    def _step(self, one: Conversation) -> Observation:
        if one.environment is None:
            environment = self.factory(one.seed(ENVIRONMENT))
            encoder = self.policy.encoder
            written = encoder.conversation_of(environment.reset(encoder.for_environment(one.example)))
            known = one.prompt.conversation
            if known is not None and (written.messages, _names(written.images)) != (
                known.messages,
                _names(known.images),
            ):
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

    def _encode_images(self, parts: Sequence[object]) -> None:
        """Compute image features once, for all turns and for the update, where the tower is frozen.

        Engines other than the policy itself compute their own; then the update does it.
        """
        cache = self.policy.vision_cache
        if isinstance(self.engine, LocalEngine) and self.policy.shared_prefix and cache.frozen:
            cache.encode([part for part in parts if part is not None])  # type: ignore[misc]


def _names(images: Sequence[object]) -> list[str]:
    return [getattr(image, "origin", "") for image in images]
