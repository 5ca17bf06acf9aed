"""Experience from rollout batches that were sampled up to k iterations before they are learned from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.errors import UserError
from mm_cpgd.interrupt import ShouldStop, never
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Collected

STALENESS = "rollout/staleness"
"""Metric: updates between the weights that sampled a batch and the first step on it."""


class Batches(Protocol):
    """Rollout batches of later iterations, sampled by the weights that the policy had at ``begin``."""

    def __contains__(self, iteration: int) -> bool:
        """Return whether the iteration's batch has begun."""
        ...

    def __len__(self) -> int:
        """Return how many batches have begun and are not taken."""
        ...

    def begin(self, iterations: Sequence[int], should_stop: ShouldStop) -> float:
        """Begin the batches of the next iterations, called on all processes while none is held.

        Returns:
            Seconds spent waiting for scores.
        """
        ...

    def take(self, iteration: int, should_stop: ShouldStop) -> Collected:
        """Wait for an iteration's batch and return its experience, with complete ``old_logprobs``.

        Raises:
            Interrupted, RuleError, RowsLost: as ``Collector.collect``.
        """
        ...

    def settle(self, should_stop: ShouldStop) -> None:
        """Wait, on all processes, until nothing is sampled any more. Raises ``Interrupted``."""
        ...

    def discard(self) -> None:
        """Drop all batches, without waiting for the sampling to end."""
        ...

    def close(self) -> None:
        """Drop all batches; no thread is left."""
        ...


class AheadSource:
    """Samples k rollout batches before the updates on earlier ones are done.

    When the batches are used up, the next k begin, with the weights of that moment: the batch of iteration
    n + i, begun in iteration n, is learned from after i further updates, so that no batch is older than k
    updates and never more than k are held. Which weights sample a batch does not depend on the clock.

    Args:
        collector: collects what was not sampled before: the first iteration's batch, and those after a resume
            or a rollback.
        batches: sampled before; without any.
        ahead: k, at least 1.
        iterations: iterations of the whole run, of which no further batch is begun.
    """

    def __init__(self, collector: Collector, batches: Batches, ahead: int, iterations: int) -> None:
        self.collector = collector
        self.batches = batches
        self.ahead = ahead
        self.iterations = iterations
        self._begun_in = 0

    def collect(self, iteration: int, should_stop: ShouldStop = never) -> Collected:
        """Return one iteration's experience and begin the next batches; errors as ``Collector.collect``."""
        started = time.perf_counter()
        if iteration in self.batches:
            staleness = iteration - self._begun_in
            assert 0 < staleness <= self.ahead
            collected, waited = self.batches.take(iteration, should_stop), 0.0
        else:
            self.batches.discard()
            self.batches.settle(should_stop)
            staleness, collected = 0, self.collector.collect(iteration, should_stop)
            waited = collected.metrics["seconds/reward"]
        waited += self._begin_next(iteration, should_stop)
        collected.metrics[STALENESS] = float(staleness)
        collected.metrics["seconds/reward"] = waited
        collected.metrics["seconds/rollout"] = time.perf_counter() - started - waited
        return collected

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of these examples."""
        return self.collector.reencode(indices)

    def settle(self, should_stop: ShouldStop) -> None:
        """Wait, on all processes, until the engine is free, as for an evaluation. Raises ``Interrupted``."""
        self.batches.settle(should_stop)

    def discard(self) -> None:
        """Drop the batches in flight: the weights that sample them were rolled back."""
        self.batches.discard()

    def close(self) -> None:
        """Drop the batches in flight and end the background thread."""
        self.batches.close()
        self.collector.close()

    def _begin_next(self, iteration: int, should_stop: ShouldStop) -> float:
        if len(self.batches):
            return 0.0
        self._begun_in = iteration
        last = min(iteration + self.ahead, self.iterations)
        return self.batches.begin(range(iteration + 1, last + 1), should_stop)


def check_ahead(rollout: RolloutConfig, objective: Objective) -> None:
    """Check ``rollout.ahead`` before anything is loaded.

    Raises:
        UserError: something in the config needs what is not there yet when a batch is sampled in the
            background, or gone when it arrives.
    """
    if rollout.swap_midway:
        raise UserError(
            "rollout.swap_midway is not supported: the engine would have to stop in the middle of its "
            "requests, take new weights from a policy that an update is changing, and go on with keys and "
            "values of the old ones; set it to false: completions in progress are finished first"
        )
    if not rollout.ahead or rollout.engine == "local":
        return
    obstacles = [line for line, found in _obstacles(rollout, objective).items() if found]
    if obstacles:
        raise UserError(
            f"rollout.ahead={rollout.ahead} with rollout.engine=vllm does not go together with "
            f"{'; and with '.join(obstacles)}. Change that, or set rollout.ahead=0"
        )


def _obstacles(rollout: RolloutConfig, objective: Objective) -> dict[str, bool]:
    """Return for each reason not to sample in the background whether it is given."""
    prepared = ", ".join(part.name for part in objective.old_policy_parts)
    chosen = rollout.vllm
    cuts = rollout.top_p < 1 or rollout.top_k > 0 or rollout.min_p > 0
    colocated = chosen.mode == "colocated"
    return {
        "algorithm.selection: dynamic_sampling, which samples again by the scores of all processes": (
            objective.max_rounds > 1
        ),
        "algorithm.prompts, which draws prompts by the scores of the batch before": (
            objective.prompts is not None
        ),
        "algorithm.budget, which deals completions out by the outcomes of the batch before": (
            objective.budget is not None
        ),
        "algorithm.demonstrations, whose texts are tokenized while the thread tokenizes prompts": (
            objective.demonstrations is not None
        ),
        f"{prepared}, which needs a forward pass of the policy that sampled: its weights are gone when the "
        "batch arrives": bool(prepared),
        "rollout.top_p, top_k and min_p: vLLM does not report which tokens its cuts left, and the weights "
        "that would tell are gone when the batch arrives": cuts,
        "rollout.vllm.sleep, which frees vLLM's memory for the update, in which it now samples": (
            colocated and chosen.sleep
        ),
        "rollout.vllm.tensor_parallel in the training processes: its collective operations and those of the "
        "update would run at the same time": colocated and chosen.tensor_parallel > 1,
    }
