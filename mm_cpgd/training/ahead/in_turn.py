"""Rollout batches sampled before the update with the policy itself, which nothing can overlap with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mm_cpgd.interrupt import Interrupted, ShouldStop
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Collected, Experience, RowsLost
from rewards import RuleError

Prepare = Callable[[Experience, int], None]


class BatchesInTurn:
    """Batches that the local engine samples at once, at the end of ``begin`` complete.

    Saves no time; the results are those of sampling during the update.

    Args:
        collector: samples and scores them, and computes their advantages.
        prepare: computes the old log-probabilities of an iteration's experience with the present weights.
    """

    def __init__(self, collector: Collector, prepare: Prepare) -> None:
        self.collector = collector
        self.prepare = prepare
        # By iteration: the batch and the sampler's state after its draws, or why there is none.
        self._held: dict[int, tuple[Collected, dict[str, Any]] | RuleError | RowsLost] = {}

    def __contains__(self, iteration: int) -> bool:
        """Return whether the iteration's batch was sampled."""
        return iteration in self._held

    def __len__(self) -> int:
        """Return how many batches are held."""
        return len(self._held)

    def begin(self, iterations: Sequence[int], should_stop: ShouldStop) -> float:
        """See ``Batches.begin``; an interruption leaves out the batch in progress and those after it."""
        sampler, waited = self.collector.sampler, 0.0
        before = sampler.state_dict()
        for iteration in iterations:
            try:
                collected = self.collector.collect(iteration, should_stop)
            except Interrupted:
                break
            except (RuleError, RowsLost) as error:  # of the iteration that needs the batch, not of this one
                self._held[iteration] = error
                break
            self.prepare(collected.experience, iteration)
            self._held[iteration] = collected, sampler.state_dict()
            waited += collected.metrics["seconds/reward"]
        # A checkpoint must not count the prompts of batches that it does not hold as drawn.
        sampler.load_state_dict(before)
        return waited

    def take(self, iteration: int, should_stop: ShouldStop) -> Collected:
        """See ``Batches.take``."""
        found = self._held.pop(iteration)
        if isinstance(found, Exception):
            raise found
        collected, after = found
        self.collector.sampler.load_state_dict(after)
        return collected

    def settle(self, should_stop: ShouldStop) -> None:
        """Nothing to wait for."""

    def discard(self) -> None:
        """Drop all batches."""
        self._held.clear()

    def close(self) -> None:
        """Drop all batches."""
        self.discard()
