"""Turns of conversations sampled by the policy itself: rows leave the batch to their tools and come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt, EncodedObservation
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.policy.families import vision_token_ids
from mm_cpgd.policy.shared_prefix.forward import appended_states
from mm_cpgd.rollout.conversations.resumable_cache import AppendedAttention, ResumableCache
from mm_cpgd.rollout.conversations.sessions import TurnRequest
from mm_cpgd.rollout.decoding import SharedDecoder
from mm_cpgd.rollout.engine import Completion
from mm_cpgd.rollout.kept import KeptSteps
from mm_cpgd.rollout.places import Places
from mm_cpgd.rollout.sampler import (
    MAX_FINISHED_SHARE,
    MAX_FINISHED_SHARE_OF_GRAPH,
    STEPS,
    STEPS_ON_CPU,
    uniforms,
)
from mm_cpgd.rollout.steps import EagerStep, GraphStep

# Share of the running turns that has to wait before some begin: a forward pass for one row alone costs
# hardly less than for many.
WAITING_SHARE = 1 / 8
# Keys or values of one layer that appended tokens attend to, in one forward pass.
APPENDED_BYTES = 2**28


class ResumableDecoder(SharedDecoder):
    """Decoder of conversations; see ``SharedDecoder``.

    Attributes:
        base: (N,) tokens that each place has in the cache from before its present turn.
    """

    cache: ResumableCache

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        *,
        copies: int,
        limit: int,
        longest: int,
        fixed: bool,
    ) -> None:
        slots = len(prompts)
        count = slots * copies
        super().__init__(policy, prompts, places=count, slots=slots, copies=copies, limit=limit, fixed=fixed)
        self.cache = ResumableCache(count, slots, copies, [len(prompt) for prompt in prompts], fixed=fixed)
        self.last_position += longest
        self.limit += longest
        self.base = torch.zeros(count, dtype=torch.long, device=policy.device)

    def columns(self, newest: Tensor) -> Tensor:
        """See ``SharedDecoder.columns``."""
        return self.base + newest

    def arrange(self, places: Sequence[int], slots: Sequence[int]) -> None:
        """See ``ResumableCache.arrange``."""
        self.cache.arrange(places, slots)
        index = torch.tensor(places, dtype=torch.long, device=self.base.device)
        more = self.base.new_zeros(len(slots) - len(places))
        self.base = torch.cat([self.base[index], more])
        self.start_position = torch.cat([self.start_position[index], more])

    def append(
        self,
        places: Sequence[int],
        prompts: Sequence[ContinuedPrompt],
        cached: Sequence[int],
        observations: Sequence[EncodedObservation],
    ) -> Tensor:
        """Compute what is new in these conversations; return the logits (n, V) of the next token.

        Args:
            places: of the conversations.
            prompts: the conversations.
            cached: tokens after the prompt that each has in the cache.
            observations: those with images among what is new.
        """
        pairs = list(zip(prompts, cached, strict=True))
        ids = torch.cat([one.tokens[start:] for one, start in pairs])
        positions = torch.cat([one.suffix.positions[:, start:] for one, start in pairs], 1)
        replaced = torch.isin(ids, torch.tensor(vision_token_ids(self.policy.model.config)))
        new = [one.tokens.numel() - start for one, start in pairs]
        hidden = appended_states(
            self.policy.model,
            ids,
            positions,
            self.policy.vision_cache.features(observations),
            replaced.nonzero().squeeze(1),
            AppendedAttention(self.cache, places, cached, new),
        )
        device = hidden.device
        index = torch.tensor(places, device=device)
        ends = torch.tensor([one.tokens.numel() for one in prompts], device=device)
        self.base.index_copy_(0, index, ends)
        following = torch.tensor([one.next_position for one in prompts], device=device)
        self.start_position.index_copy_(0, index, following)
        logits: Tensor = self.head(hidden[torch.tensor(new, device=device).cumsum(0) - 1])
        return logits


@dataclass
class _Row:
    """A conversation.

    Attributes:
        slot: of its prompt.
        cached: tokens after the prompt whose keys and values are known.
        place: None: it has none.
        held: see ``ResumableCache.set_aside``; None: nothing is set aside.
        turn: number of the turn that it is in; None: in none.
    """

    slot: int
    cached: int = 0
    place: int | None = None
    held: Tensor | None = None
    turn: int | None = None


class LocalSession:
    """A ``TurnSession`` of the local engine.

    A conversation whose tool works keeps its keys and values: in its place, or set aside when the place is
    needed, as far as there is room. So only what was observed is computed for its next turn.

    Args:
        policy: in evaluation mode, with ``shared_prefix``.
        prompts: P.
        copies: G.
        sampling: options of a turn.
        longest: most tokens of a conversation after its prompt.
        batch_prompts: prompts that are prefilled together.
        report_kept: whether the tokens that the cuts left are reported.
        graph: whether the step is recorded as a CUDA graph.
        room: most bytes of keys and values that are set aside; None: no limit.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        copies: int,
        sampling: Sampling,
        longest: int,
        *,
        batch_prompts: int,
        report_kept: bool,
        graph: bool,
        room: int | None,
    ) -> None:
        self.policy = policy
        self.prompts = prompts
        self.limit = sampling.max_new_tokens
        self.loads = batch_prompts
        self.graph = graph
        self.room = room
        count = len(prompts) * copies
        self.steps = STEPS if policy.device.type == "cuda" else STEPS_ON_CPU
        kept = None
        if sampling.has_cuts and report_kept:
            self.steps = min(self.steps, KeptSteps.most_steps(count, policy.head_rows) - 1)
            kept = KeptSteps(count, self.limit, self.steps + 1)
        self.places = Places(count, sampling, policy.forbidden, policy.end_ids, policy.pad_id, kept)
        self.decoder = ResumableDecoder(
            policy, prompts, copies=copies, limit=self.limit, longest=longest, fixed=graph
        )
        self.step = GraphStep() if graph else EagerStep()
        self.rows = {number: _Row(number // copies) for number in range(count)}
        self.owners: list[int | None] = [None] * count
        self.ages = [0] * count  # tokens drawn in each place in its present turn
        self.waiting: list[TurnRequest] = []
        self.turns = 0
        self.crowded = False

    @property
    def busy(self) -> bool:
        """See ``TurnSession``."""
        return bool(self.waiting or self._running())

    def submit(self, request: TurnRequest) -> None:
        """See ``TurnSession``."""
        self.waiting.append(request)

    def forget(self, row: int) -> None:
        """See ``TurnSession``."""
        place = self.rows.pop(row).place
        if place is not None:
            self.owners[place] = None

    @torch.no_grad()
    def advance(self) -> list[tuple[int, Completion | None]]:
        """See ``TurnSession``."""
        running = self._running()
        if self.waiting and len(self.waiting) >= len(running) * WAITING_SHARE:
            if self.decoder.first is None:
                self._begin()
            else:
                self._resume(running)
        elif self.crowded and running:
            self._arrange([self._owner(place) for place in running])
        self.crowded = False
        if not (running := self._running()):
            return []
        self._step(running)
        return self._look(running)

    def _running(self) -> list[int]:
        """Return the places in which a turn is sampled."""
        return [place for place, turn in enumerate(self._turns()) if turn is not None]

    def _turns(self) -> list[int | None]:
        """Return the turn that is sampled in each place."""
        return [None if row is None else self.rows[row].turn for row in self.owners]

    def _owner(self, place: int) -> int:
        row = self.owners[place]
        assert row is not None
        return row

    def _begin(self) -> None:
        """Prefill all prompts, and begin the first turns."""
        for first in range(0, len(self.prompts), self.loads):
            part = range(len(self.prompts))[first : first + self.loads]
            self.decoder.load([self.prompts[slot] for slot in part], part)
        self.decoder.cache.hold_prompts()
        places = list(range(len(self.places)))
        logits = self.decoder.start(places, places)
        seeds = {request.row: request.seed for request in self.waiting}
        for place in places:
            self.owners[place] = self.rows[place].place = place
        # Conversations without a first turn have a place, too, as long as none is needed.
        begun = sorted(seeds)
        self._start(
            begun, [seeds[row] for row in begun], logits[begun] if len(begun) < len(places) else logits
        )
        self.waiting = []

    def _start(self, places: Sequence[int], seeds: Sequence[int], logits: Tensor) -> None:
        """Draw the first tokens of turns."""
        rows = torch.tensor(places, device=logits.device)
        self.places.start(rows, uniforms([seeds], self.limit).to(logits.device), logits)
        for place in places:
            self.ages[place] = 1
            self.rows[self._owner(place)].turn = self.turns
            self.turns += 1

    def _resume(self, running: Sequence[int]) -> None:
        """Begin all turns that wait."""
        requests, self.waiting = sorted(self.waiting, key=lambda one: one.row), []
        numbers = [request.row for request in requests]
        if self.graph or any(self.rows[number].place is None for number in numbers):
            stay = sorted(self.rows) if self.graph else [self._owner(place) for place in running]
            missing = any(self.rows[number].place is None for number in (*stay, *numbers))
            if missing or len(stay) <= len(self.places) * (1 - MAX_FINISHED_SHARE_OF_GRAPH):
                self._arrange([*stay, *(number for number in numbers if number not in set(stay))])
        for part in self._parts(requests):
            self._append(part)

    def _parts(self, requests: Sequence[TurnRequest]) -> Iterator[list[TurnRequest]]:
        """Split requests into those that are computed together."""
        cache = self.decoder.cache
        keys = cache.keys[0]
        token = keys.shape[1] * keys.shape[3] * keys.element_size()
        part: list[TurnRequest] = []
        longest = 0
        for request in requests:
            assert isinstance(request.prompt, ContinuedPrompt)
            longest = max(longest, cache.longest + request.prompt.tokens.numel())
            if part and (len(part) + 1) * longest * token > APPENDED_BYTES:
                yield part
                part, longest = [], cache.longest + request.prompt.tokens.numel()
            part.append(request)
        if part:
            yield part

    def _append(self, requests: Sequence[TurnRequest]) -> None:
        prompts: list[ContinuedPrompt] = []
        observations: list[EncodedObservation] = []
        cached, places = [], []
        for request in requests:
            row = self.rows[request.row]
            assert isinstance(request.prompt, ContinuedPrompt)
            assert row.place is not None
            prompts.append(request.prompt)
            cached.append(row.cached)
            places.append(row.place)
            # With nothing in the cache everything after the prompt is new.
            observations += request.observations[-1:] if row.cached else request.observations
            row.cached = request.prompt.tokens.numel()
        self.decoder.reserve(max(row.tokens.numel() for row in prompts) + 1, uniform=False)
        logits = self.decoder.append(places, prompts, cached, observations)
        self._start(places, [request.seed for request in requests], logits)
        if self.places.kept is not None:  # which has room for one start between two looks
            self.places.kept.read(self._turns())

    def _step(self, running: Sequence[int]) -> None:
        """Do the steps until the next look."""
        ages = [self.ages[place] for place in running]
        widths = [self.rows[self._owner(place)].cached + self.ages[place] for place in running]
        # A step writes into all places: into those that wait behind what they have computed, for which there
        # has to be room, but where all are equally long into the same column of each.
        holders = [self.rows[row].cached for row in self.owners if row is not None]
        self.decoder.reserve(max(holders) + 1, uniform=False)
        widest, uniform = max(widths), len(set(widths)) == 1 and len(running) == len(holders)
        steps = min(self.steps, self.limit - min(ages))
        room = max(
            self.rows[self._owner(place)].cached + min(self.ages[place] + steps, self.limit)
            for place in running
        )
        for step in range(steps):
            self.decoder.reserve(min(widest + step, room), uniform=uniform)
            self.step(self._draw, self.decoder.version)
        for place in running:
            self.ages[place] += steps

    def _draw(self) -> None:
        self.places.choose(self.decoder.advance(self.places.token, self.places.newest))

    def _look(self, running: Sequence[int]) -> list[tuple[int, Completion | None]]:
        """Return the turns that have ended."""
        if self.places.kept is not None:
            self.places.kept.read(self._turns())
        stopped = self.places.stopped()
        ended = [place for place in running if stopped[place]]
        active = len(running) - len(ended)
        share = MAX_FINISHED_SHARE_OF_GRAPH if self.graph else MAX_FINISHED_SHARE
        self.crowded = not self.graph and active <= len(self.places) * (1 - share)
        if not ended:
            return []
        drawn = self.places.take(ended)
        texts = self.policy.tokenizer.batch_decode(
            [one.tokens.tolist() for one in drawn], skip_special_tokens=True
        )
        found: list[tuple[int, Completion | None]] = []
        for place, one, text in zip(ended, drawn, texts, strict=True):
            number = self._owner(place)
            row = self.rows[number]
            kept = None
            if self.places.kept is not None and row.turn is not None:
                (kept,) = self.places.kept.take(range(row.turn, row.turn + 1), [len(one.tokens)])
            # The last token has been drawn, and not read yet.
            row.cached, row.turn = row.cached + len(one.tokens) - 1, None
            found.append((number, Completion(one.tokens, one.logprobs, text, one.ended, kept)))
        return found

    def _arrange(self, numbers: Sequence[int]) -> None:
        """Give places to these conversations alone, and set others aside."""
        chosen = set(numbers)
        self._set_aside([number for number in self.owners if number is not None and number not in chosen])
        staying = [number for number in numbers if self.rows[number].place is not None]
        coming = [number for number in numbers if self.rows[number].place is None]
        old = [place for number in staying if (place := self.rows[number].place) is not None]
        everyone = [*staying, *coming]
        self.decoder.arrange(old, [self.rows[number].slot for number in everyone])
        self.places.keep(torch.tensor(old, dtype=torch.long, device=self.places.rows.device), len(coming))
        self.ages = [*(self.ages[place] for place in old), *(0 for _ in coming)]
        self.owners = list(everyone)
        for place, number in enumerate(everyone):
            self.rows[number].place = place
        if held := [number for number in coming if self.rows[number].held is not None]:
            self.decoder.reserve(max(self.rows[number].cached for number in held), uniform=False)
        for number in held:
            row = self.rows[number]
            assert row.held is not None
            assert row.place is not None
            self.decoder.cache.put_back(row.place, row.held)
            row.held = None

    def _set_aside(self, numbers: Sequence[int]) -> None:
        """Take conversations out of their places, and keep what they have computed if there is room."""
        used = sum(row.held.nbytes for row in self.rows.values() if row.held is not None)
        cache = self.decoder.cache
        keys = cache.own_keys[0]
        token = 2 * len(cache.own_keys) * keys.shape[1] * keys.shape[3] * keys.element_size()
        kept: list[_Row] = []
        for number in numbers:
            row = self.rows[number]
            used += row.cached * token
            if self.room is None or used <= self.room:
                kept.append(row)
            else:
                used -= row.cached * token
                row.cached, row.place = 0, None
        places = [row.place for row in kept if row.place is not None]
        for row, held in zip(kept, cache.set_aside(places, [row.cached for row in kept]), strict=True):
            row.held, row.place = held, None
