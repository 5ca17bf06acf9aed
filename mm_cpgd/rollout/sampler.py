"""Sampling loop of the local engine: places are filled, stepped, looked at now and then, and filled again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.distribution import KeptTokens, Sampling
from mm_cpgd.policy.sharding.tensors import is_sharded
from mm_cpgd.rollout.decoding import IncrementalDecoder, PaddedDecoder, SharedDecoder
from mm_cpgd.rollout.kept import KeptSteps
from mm_cpgd.rollout.places import Drawn, Places
from mm_cpgd.rollout.schedule import Schedule
from mm_cpgd.rollout.steps import EagerStep, GraphStep

# Largest share of places without a running completion; above it they are filled again, or removed.
MAX_FINISHED_SHARE = 1 / 8
# The same for removal where the step is a graph: its time hardly depends on the number of places, and a new
# graph has to be recorded.
MAX_FINISHED_SHARE_OF_GRAPH = 1 / 2
# Slots for each prompt that is sampled at a time: a prompt stays until its longest completion ends, when most
# of its others have made room. And the share of these prompts that are prefilled together later on.
SLOTS = 2
LATER_SHARE = 1 / 8
# Steps between two looks at a GPU, which has to end its work for each.
STEPS = 16
STEPS_ON_CPU = 1


class Sampler:
    """Samples G completions of each prompt, N at a time.

    Args:
        policy: in evaluation mode.
        prompts: P' prompts.
        sampling: its options.
        seeds: (P', G).
        batch_prompts: prompts of which all completions are decoded together.
        report_kept: whether the tokens that the cuts left are reported.
        graph: whether the step is recorded as a CUDA graph.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        *,
        batch_prompts: int,
        report_kept: bool,
        graph: bool,
    ) -> None:
        self.prompts = prompts
        self.limit = sampling.max_new_tokens
        copies = len(seeds[0])
        count = min(len(prompts), batch_prompts) * copies
        slots = min(len(prompts), SLOTS * batch_prompts if len(prompts) > batch_prompts else batch_prompts)
        # Prompts that are prefilled together: fewer as soon as completions have a cache.
        self.loads, self.later_loads = batch_prompts, later_loads(batch_prompts)
        on_gpu = policy.device.type == "cuda"
        self.graph = graph
        self.steps = STEPS if on_gpu else STEPS_ON_CPU
        kept = None
        if sampling.has_cuts and report_kept:
            self.steps = min(self.steps, KeptSteps.most_steps(count, policy.head_rows) - 1)
            kept = KeptSteps(count, self.limit, self.steps + 1)
        self.schedule = Schedule(len(prompts), copies, count, slots)
        self.places = Places(count, sampling, policy.forbidden, policy.end_ids, policy.pad_id, kept)
        self.decoder: IncrementalDecoder = PaddedDecoder(policy, copies)
        if policy.shared_prefix:
            self.decoder = SharedDecoder(
                policy,
                prompts,
                places=count,
                slots=slots,
                copies=copies,
                limit=self.limit,
                fixed=self.graph,
                together=len(prompts) <= batch_prompts,
            )
        self.step = GraphStep() if self.graph else EagerStep()
        self.uniforms = uniforms(seeds, self.limit)
        self.ages = [0] * count  # tokens drawn in each place, while its completion runs
        self.drawn: dict[int, Drawn] = {}

    def run(self) -> Iterator[list[tuple[Drawn, KeptTokens | None]]]:
        """Yield what completions have drawn, and the tokens that the cuts left to each if they are reported.

        Completions come in order, all of a prompt's together, as soon as they have ended.
        """
        given, copies = 0, self.schedule.copies
        self._start()
        while running := self.schedule.running:
            self._steps(running)
            self._look(running)
            if ready := self.schedule.ended_prompts(given):
                yield self._results(range(given * copies, (given + ready) * copies))
                given += ready

    def _results(self, completions: range) -> list[tuple[Drawn, KeptTokens | None]]:
        drawn = [self.drawn.pop(completion) for completion in completions]
        kept: Sequence[KeptTokens | None] = [None] * len(drawn)
        if self.places.kept is not None:
            kept = self.places.kept.take(completions, [len(one.tokens) for one in drawn])
        return list(zip(drawn, kept, strict=True))

    def _start(self) -> None:
        starts = self.schedule.start()
        for first in range(0, len(starts.prompts), self.loads):
            part = slice(first, first + self.loads)
            prompts = [self.prompts[prompt] for prompt in starts.prompts[part]]
            self.decoder.load(prompts, starts.slots[part])
        self.loads = self.later_loads
        if not starts.places:
            return
        logits = self.decoder.start(starts.places, starts.seats)
        rows = torch.tensor(starts.places, device=logits.device)
        self.places.start(rows, self.uniforms[starts.completions].to(logits.device), logits)
        for place in starts.places:
            self.ages[place] = 1

    def _steps(self, running: Sequence[int]) -> None:
        """Do the steps until the next look."""
        ages = [self.ages[place] for place in running]
        oldest, uniform = max(ages), len(set(ages)) == 1
        steps = min(self.steps, self.limit - min(ages))
        for step in range(steps):
            self.decoder.reserve(min(oldest + step, self.limit), uniform=uniform)
            self.step(self._step, self.decoder.version)
        for place in running:
            self.ages[place] += steps

    def _step(self) -> None:
        self.places.choose(self.decoder.advance(self.places.token, self.places.newest))

    def _look(self, running: Sequence[int]) -> None:
        """Take completions that have stopped, if enough have; fill their places, or remove them."""
        if self.places.kept is not None:
            self.places.kept.read(self.schedule.owner)
        stopped = self.places.stopped()
        active = [place for place in running if not stopped[place]]
        waiting = self.schedule.waiting
        share = MAX_FINISHED_SHARE_OF_GRAPH if self.graph and not waiting else MAX_FINISHED_SHARE
        if active and len(active) > len(self.places) * (1 - share):
            return
        if ended := [place for place in running if stopped[place]]:
            drawn = self.places.take(ended)
            self.drawn.update(zip(self.schedule.end(ended), drawn, strict=True))
        if waiting:
            self._start()
        elif active:
            self._keep(active)

    def _keep(self, places: Sequence[int]) -> None:
        self.schedule.keep(places)
        self.decoder.keep(places)
        self.places.keep(torch.tensor(places, device=self.places.rows.device))
        self.ages = [self.ages[place] for place in places]


def later_loads(batch_prompts: int) -> int:
    """Return how many prompts are prefilled together while completions of others are sampled."""
    return max(1, int(batch_prompts * LATER_SHARE))


def can_be_graph(policy: Policy) -> bool:
    """Return whether the step of this policy can be a CUDA graph, unless its layers need the host."""
    sharded = any(is_sharded(parameter) for parameter in policy.model.parameters())
    return policy.device.type == "cuda" and policy.shared_prefix and not sharded


def uniforms(seeds: Sequence[Sequence[int]], count: int) -> Tensor:
    """Return (n, count) uniform numbers in [0, 1), each row drawn from its own seed."""
    rows = [
        torch.rand(count, generator=torch.Generator().manual_seed(seed)) for group in seeds for seed in group
    ]
    return torch.stack(rows)
