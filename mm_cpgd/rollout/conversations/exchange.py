"""Exchange between conversations and environments: each conversation goes on when its tool has replied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from mm_cpgd.environments.protocol import Observation
from mm_cpgd.rollout.conversations.sessions import TurnRequest, TurnSession
from mm_cpgd.rollout.conversations.state import LOST_IMAGE, Conversation
from mm_cpgd.rollout.conversations.stepping import StepFailed, StepPool
from mm_cpgd.rollout.engine import Completion

if TYPE_CHECKING:
    from mm_cpgd.rollout.conversations.sampler import ConversationSampler


class Exchange:
    """Conversations of one session.

    While the environments of some reply in threads, the turns of others are sampled. With ``rounds`` of the
    sampler, no turn begins before all environments have replied to the one before: what is computed together
    depends on nothing but the conversations.

    Args:
        sampler: its environments and limits.
        session: samples the turns.
        groups: the conversations of each prompt, equally many.
    """

    def __init__(
        self, sampler: ConversationSampler, session: TurnSession, groups: Sequence[list[Conversation]]
    ) -> None:
        self.sampler = sampler
        self.session = session
        self.rows = [one for group in groups for one in group]
        self.groups = groups
        self.pool: StepPool[Observation] = StepPool(seconds=sampler.seconds, threads=sampler.threads)

    def run(self) -> None:
        """Hold the conversations; those of a prompt whose image has vanished stay without a turn."""
        for number, one in enumerate(self.rows):
            self.session.submit(TurnRequest(number, one.prompt, one.seed(0)))
        while self.session.busy or self.pool.busy:
            if not (self.sampler.rounds and self.session.busy):
                self._go_on(self._replies())
            for number, completion in self.session.advance():
                self._note_turn(number, completion)

    def _replies(self) -> list[tuple[int, Observation | StepFailed]]:
        """Return what environments have replied, by the numbers of the conversations."""
        if not self.sampler.rounds:
            return self.pool.poll(wait=not self.session.busy)
        found = []
        while self.pool.busy:
            found += self.pool.poll(wait=True)
        return sorted(found, key=lambda one: one[0])

    def _go_on(self, replies: Sequence[tuple[int, Observation | StepFailed]]) -> None:
        """Submit the next turns of these conversations, as far as they have one."""
        going = []
        for number, reply in replies:
            one = self.rows[number]
            self.sampler.note_reply(one, reply)
            if one.ended:
                self.session.forget(number)
            else:
                going.append((number, one))
        newest = [one.observations[-1] for _, one in going]
        # Without rounds one by one: the features, which are kept for the update, must not depend by their
        # rounding on which environments have replied at the same time.
        for part in [newest] if self.sampler.rounds else [[seen] for seen in newest]:
            self.sampler.encode_images(part)
        for number, one in going:
            prompt = one.continued(self.sampler.policy.model)
            request = TurnRequest(number, prompt, one.seed(len(one.turns)), tuple(one.observations))
            self.session.submit(request)

    def _note_turn(self, number: int, completion: Completion | None) -> None:
        one = self.rows[number]
        if completion is not None:
            self.sampler.add_turn(one, completion)
            self.pool.submit(number, partial(self.sampler.step, one))
            return
        self.session.forget(number)
        if one.turns:
            one.fail(LOST_IMAGE)
