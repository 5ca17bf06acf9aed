"""Outcomes of generation: what each process found, and the responses of all of them in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from eval.benchmark import Failure, Response
from eval.generate.cache import Generation


@dataclass
class Generations:
    """Responses generated for the questions of a benchmark.

    Attributes:
        responses: in the order of questions and samples; those with a ``failure`` stand for none.
        cached: number of responses that came from the cache.
        images: SHA-256 of all images' bytes, in order.
        not_forced: why cut responses could not be continued, by (id, sample).
    """

    responses: list[Response] = field(default_factory=list)
    cached: int = 0
    images: str = ""
    not_forced: dict[tuple[str, int], Failure] = field(default_factory=dict)

    @property
    def failures(self) -> dict[tuple[str, int], Failure]:
        """Failures by (id, sample)."""
        return {(one.id, one.sample): one.failure for one in self.responses if one.failure is not None}


@dataclass
class Outcomes:
    """What one process has generated, by (id, sample).

    Attributes:
        found: generations, and reasons why there is none.
        images: SHA-256 of the images' bytes by question, without those that cannot be read.
        cached: those that came from the cache.
        forced: the whole responses of those that were cut off and continued, or why one could not be.
    """

    found: dict[tuple[str, int], Generation | Failure] = field(default_factory=dict)
    images: dict[str, list[str]] = field(default_factory=dict)
    cached: set[tuple[str, int]] = field(default_factory=set)
    forced: dict[tuple[str, int], Generation | Failure] = field(default_factory=dict)

    def update(self, other: Outcomes) -> None:
        """Add what another process has generated."""
        self.found.update(other.found)
        self.images.update(other.images)
        self.cached.update(other.cached)
        self.forced.update(other.forced)


def in_order(questions: Iterable[str], samples: int, outcomes: Outcomes) -> Generations:
    """Return the responses to the questions with these ids, in their order and that of their samples."""
    images, names = hashlib.sha256(), list(questions)
    for name in names:
        images.update("".join(outcomes.images.get(name, ())).encode())
    generations = Generations(cached=len(outcomes.cached), images=images.hexdigest())
    for key in [(name, sample) for name in names for sample in range(samples)]:
        outcome, more = outcomes.found[key], outcomes.forced.get(key)
        if isinstance(more, Failure):
            generations.not_forced[key] = more
        generations.responses.append(_response(*key, outcome, more))
    return generations


def _response(
    name: str, sample: int, outcome: Generation | Failure, more: Generation | Failure | None
) -> Response:
    if isinstance(outcome, Failure):
        return Response(name, outcome.text, sample, failure=outcome)
    whole = more if isinstance(more, Generation) else outcome
    return Response(
        name, whole.text, sample, finished=whole.finished, tokens=whole.tokens, forced=whole is more
    )
