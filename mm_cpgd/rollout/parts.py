"""Completions of a rollout batch, taken in parts, between which the caller does other things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout.engine import Group, RolloutEngine, WrappedEngine

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt


@runtime_checkable
class StreamingEngine(Protocol):
    """An engine that gives the places of finished completions to those of further prompts."""

    def stream(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> Iterator[Group]:
        """Yield what ``RolloutEngine.generate`` returns, each group once those before it are complete too."""
        ...


class GroupsInParts:
    """Groups of many prompts; a streaming engine goes on with later parts while a part is incomplete.

    Args:
        engine: samples.
        sampling: its options.
        seeds: of each prompt's completions.
    """

    def __init__(self, engine: RolloutEngine, sampling: Sampling, seeds: Sequence[Sequence[int]]) -> None:
        self.engine = engine
        self.sampling = sampling
        self.seeds = seeds
        self._groups: Iterator[Group] | None = None

    def __enter__(self) -> GroupsInParts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._groups is not None:
            self._groups.close()  # type: ignore[attr-defined]

    @property
    def needs_all(self) -> bool:
        """Whether all prompts have to be known when the first part is taken."""
        return isinstance(self.engine, StreamingEngine)

    def take(self, prompts: Sequence[EncodedPrompt | None], part: slice) -> list[Group]:
        """Return the groups of a part; parts are taken in order.

        Args:
            prompts: all that are known, None for lost rows and for those that are to be left out.
            part: which of them.

        Returns:
            The completions of each prompt of the part, none for None.
        """
        wanted = prompts[part]
        if isinstance(self.engine, StreamingEngine):
            if self._groups is None:
                self._groups = self.engine.stream(*self._present(prompts, self.seeds))
            groups = self._groups
        else:
            groups = iter(self.engine.generate(*self._present(wanted, self.seeds[part])))
        return [[] if prompt is None else next(groups) for prompt in wanted]

    def _present(
        self, prompts: Sequence[EncodedPrompt | None], seeds: Sequence[Sequence[int]]
    ) -> tuple[list[EncodedPrompt], Sampling, list[Sequence[int]]]:
        pairs = [(prompt, own) for prompt, own in zip(prompts, seeds, strict=True) if prompt is not None]
        return [prompt for prompt, _ in pairs], self.sampling, [own for _, own in pairs]


class EqualCounts(WrappedEngine):
    """An engine for prompts with different numbers of completions: one call for each number.

    Args:
        engine: samples equally many completions of each prompt of a call.
        counts: completions of each prompt of the rollout batch, of all processes: all call equally often.
    """

    def __init__(self, engine: RolloutEngine, counts: Sequence[int]) -> None:
        super().__init__(engine)
        self.counts = sorted(set(counts))

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """See ``RolloutEngine.generate``."""
        groups: list[Group] = [[] for _ in prompts]
        for count in self.counts:
            places = [place for place, own in enumerate(seeds) if len(own) == count]
            chosen = [prompts[place] for place in places], sampling, [seeds[place] for place in places]
            for place, group in zip(places, self.engine.generate(*chosen), strict=True):
                groups[place] = group
        return groups
