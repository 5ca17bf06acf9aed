"""Prompt samplers: every row once an epoch in a resumable order, or a share of the prompts drawn by score."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from data.example import DataError


class PromptSampler:
    """Draws row indices without replacement, epoch after epoch.

    The order of an epoch is a function of (seed, epoch) alone, so the state is two small numbers, and a
    resumed sampler goes on as if it had never stopped.

    Args:
        size: number of rows.
        seed: any integer.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise DataError(f"cannot draw prompts from {size} rows; give at least one")
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._order = self._shuffled()

    def take(self, count: int) -> list[int]:
        """Return the next ``count`` row indices; a draw may run over the end of an epoch, or over many."""
        if count < 0:
            raise ValueError(f"cannot take {count} rows")
        taken: list[int] = []
        while len(taken) < count:
            if self.position == self.size:
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._shuffled()
            part = self._order[self.position : self.position + count - len(taken)]
            self.position += len(part)
            taken += part.tolist()
        return taken

    def peek(self, count: int) -> list[int]:
        """Return what ``take`` would, and stay where it is."""
        # A shallow copy will do: drawing replaces attributes and changes none of them in place.
        return copy(self).take(count)

    def state_dict(self) -> dict[str, int]:
        """Return what ``load_state_dict`` needs, as plain numbers."""
        return {"size": self.size, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken. Raises ``DataError`` if it is of other rows or another seed."""
        for name in ("size", "seed"):
            if state[name] != getattr(self, name):
                raise DataError(
                    f"the checkpoint drew prompts with {name} {state[name]}, this run has "
                    f"{getattr(self, name)}; resume with the data and seed it was started with"
                )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        # SeedSequence takes no negative numbers; the modulus keeps any two 64-bit seeds apart.
        return np.random.default_rng([self.seed % 2**64, self.epoch]).permutation(self.size)


class ScoredPromptSampler(PromptSampler):
    """Draws a share of each batch by score, without repetition, and the rest as ``PromptSampler`` does.

    A row has a score from the time it is first noted; what cannot be drawn by score, because too few rows
    have a positive one, comes from the rest. Draws depend on seed, number of draws and notes alone.

    Args:
        size: number of rows.
        seed: any integer.
        share: of each batch that is drawn by score.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, size: int, seed: int = 0, share: float = 0.5):
        super().__init__(size, seed)
        self.share = share
        self.draws = 0
        self.scores = np.full(size, np.nan)

    def take(self, count: int) -> list[int]:
        """Return ``count`` row indices; a row that comes by score is not among the others of the batch."""
        wanted = round(self.share * count)
        others = super().take(count - wanted)
        weights = np.nan_to_num(self.scores)
        weights[others] = 0
        chosen = self._by_score(weights, min(wanted, int((weights > 0).sum())))
        self.draws += 1
        return [*others, *chosen, *super().take(wanted - len(chosen))]

    def note(self, indices: Sequence[int], scores: Sequence[float]) -> None:
        """Remember the scores of rows in place of older ones; NaN and what is below 0 count as 0."""
        self.scores[list(indices)] = np.nan_to_num(np.asarray(scores, dtype=float)).clip(min=0)

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs; the scores as an array."""
        return {**super().state_dict(), "draws": self.draws, "scores": self.scores.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; a state without scores leaves all rows without.

        Raises:
            DataError: it is of other rows or another seed.
        """
        super().load_state_dict(state)
        self.draws = int(state.get("draws", 0))
        self.scores = np.array(state.get("scores", np.full(self.size, np.nan)), dtype=float)

    def _by_score(self, weights: np.ndarray, count: int) -> list[int]:
        if not count:
            return []
        rng = np.random.default_rng([self.seed % 2**64, self.draws, 1])
        drawn: list[int] = rng.choice(self.size, count, replace=False, p=weights / weights.sum()).tolist()
        return drawn
